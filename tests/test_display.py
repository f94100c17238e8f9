import pytest

from cifarfast.display import HEADER, Display
from tests.test_runfolder import row


def show(capsys: pytest.CaptureFixture[str]) -> str:
    with Display(epochs=2, steps=4) as display:
        for epoch in (0, 1):
            for _ in range(2):
                display.advance(epoch)
            display.epoch(row(epoch + 1, accuracy=0.5))
    return capsys.readouterr().out


def test_one_line_an_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = show(capsys).splitlines()
    assert lines[0] == HEADER
    assert [line.split()[0] for line in lines[1:]] == ["1/2", "2/2"]
    assert lines[2].split()[1:] == ["1.0000", "40.00%", "1.1000", "50.00%", "0.01000", "10.0", "100", "2.0%"]
    assert len({len(line) for line in lines}) == 1  # the figures stand under their headings


def test_a_bar_with_the_time_left_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    shown = show(capsys)
    assert "epoch 2 of 2" in shown
    assert "4/4" in shown
    assert "time left" in shown
    assert "2/2 " in shown
