import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest

from cifarfast import door
from cifarfast.errors import NonFiniteError, UserError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    """How large."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A command for tests."""

    inner: Inner = Inner()
    """Something nested."""
    mode: Literal["a", "b"] = "a"
    """Which one."""
    fast: bool = False
    """Hurry."""


def test_fields_are_flags_and_nested_ones_have_no_prefix() -> None:
    parsed = door.parse(Arguments, prog="test", argv=["--size", "5", "--fast", "--mode", "b"])
    assert parsed == Arguments(inner=Inner(size=5), mode="b", fast=True)
    assert door.parse(Arguments, prog="test", argv=[], default=Arguments(mode="b")).mode == "b"


@pytest.mark.parametrize("spelled", [["--max-lr", "auto"], ["--max_lr", "auto"], ["--max-lr=auto"]])
def test_a_flag_is_found_before_parsing_in_every_spelling(spelled: list[str]) -> None:
    argv = ["--size", "5", *spelled, "--fast"]
    assert door.named(argv, "--max-lr") == "auto"
    assert door.without(argv, "--max-lr") == ["--size", "5", "--fast"]
    assert door.named(argv, "--recipe") is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--size", "x"], "--size"),
        (["--size", "0"], "size must be at least 1, not 0"),
        (["--mode", "c"], "--mode"),
        (["--nothing"], "--nothing"),
        (["--size"], "--size"),
        (["stray"], "stray"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        door.parse(Arguments, prog="test", argv=argv)
    assert leaving.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert words in printed.err
    assert "test --help" in printed.err


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.usefixtures("restored_sigterm")
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("no such thing:\n  try another"), 2, "no such thing: try another"),
        (NonFiniteError("diverged"), 3, "diverged"),
        (PermissionError(13, "Permission denied", "/data"), 2, "/data: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_how_a_command_ends(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        door.run(raising(error))
    assert leaving.value.code == code
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.usefixtures("restored_sigterm")
def test_names_that_are_no_text_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        print("data\udcff")
        door.note("\x1b[2Jdata\udcff\n")
        raise FileNotFoundError(2, "No such file or directory", "two\nlines\udcff")

    with pytest.raises(SystemExit):
        door.run(main)
    printed = capsys.readouterr()
    assert printed.out == "data\\udcff\n"
    assert printed.err == "\\x1b[2Jdata\\udcff\nerror: two lines\\udcff: No such file or directory\n"


@pytest.mark.usefixtures("restored_sigterm")
def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        door.run(raising(ZeroDivisionError()))


@pytest.mark.usefixtures("restored_sigterm")
def test_success_is_exit_0() -> None:
    with pytest.raises(SystemExit) as leaving:
        door.run(lambda: None)
    assert leaving.value.code == 0


def test_sigterm_cleans_up_and_leaves_with_143() -> None:
    code = (
        "import time; from cifarfast import door\n"
        "def main():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(30)\n"
        "    finally:\n"
        "        print('cleaned', flush=True)\n"
        "door.run(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGTERM)
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (143, "cleaned\n", "error: terminated\n")


def test_a_table_has_a_line_a_row_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    door.print_columns([("name", "n", "note"), ("a\x1b[2J", "10", ""), ("longer", "2", "x " * 200)])
    assert capsys.readouterr().out == (
        "name      n   note\n" + "a\\x1b[2J  10\n" + "longer    2   " + ("x " * 200).strip() + "\n"
    )
