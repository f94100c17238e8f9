"""Progress where there is no terminal."""

import pytest

from data_prep.progress import stage


def test_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 1.0, 10.0, 10.0, 11.0, 19.0, 20.0, 20.0])
    monkeypatch.setattr("data_prep.progress.time.monotonic", lambda: next(now))
    with stage("counting", total=200, done=20) as advance:
        for _ in range(5):
            advance(30)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["counting", "counting: 40%", "counting: 85%"]
    assert captured.out == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with stage("counting [bytes]", total=200, in_bytes=True) as advance:
        advance(200)
    error = capsys.readouterr().err
    assert "counting [bytes]" in error
    assert "200/200 bytes" in error
