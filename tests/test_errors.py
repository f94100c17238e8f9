import pytest

from cifarfast.errors import UserError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain: é, 猫, 'quoted'", "plain: é, 猫, 'quoted'"),
        ("two\nlines\tand\r\n  spaces", "two lines and spaces"),
        ("\x1b[31mred\x07\x9b2J", r"\x1b[31mred\x07\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("not \udcff UTF-8", r"not \udcff UTF-8"),
        ("\x85next\u2028line", "next line"),
    ],
)
def test_nothing_in_a_message_reaches_the_terminal_but_text(text: str, line: str) -> None:
    assert one_line(text) == line == str(UserError(text))
    assert one_line(text).isprintable()


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    line = one_line("where " + 10_000 * "x" + ": what to do")
    assert len(line) < 1000
    assert line.startswith("where xxx")
    assert line.endswith("xxx: what to do")
