from pathlib import Path

import pytest

from cifarfast.report import main
from tests.commands import refusal
from tests.reporting.conftest import MakeRun


def test_one_run(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", predictions=False, data=tmp_path / "gone")
    main([str(run)])
    assert capsys.readouterr() == (f"saved {run / 'report.html'}\n", "")
    assert (run / "report.html").exists()


def test_what_a_run_did_not_keep_is_asked_again(
    make_run: MakeRun,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path / "run", predictions=False, data=tmp_path / "gone", test_images=4)
    main([str(run), "--data", str(data), "--out", str(tmp_path / "page.html")])
    printed = capsys.readouterr()
    assert printed.out == f"saved {tmp_path / 'page.html'}\n"
    assert printed.err == "asking the network about 4 test images, once: the run did not keep what it said\n"
    assert (run / "predictions.safetensors").exists()
    assert not (run / "report.html").exists()


def test_several_runs(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path / "run", predictions=False)
    monkeypatch.chdir(tmp_path)
    main([str(run), str(run)])
    assert capsys.readouterr().out == "saved comparison/report.html\n"
    assert (tmp_path / "comparison" / "report.html").exists()


@pytest.mark.usefixtures("restored_sigterm")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which run? name one or more run folders"),
        (["nowhere"], "nowhere holds no run"),
        (["nowhere", "other"], "nowhere holds no run"),
        (["nowhere", "other", "--data", "here"], "--data here is for one run, not for 2"),
        (["nowhere", "other", "--lr-range", "here"], "--lr-range here is for one run, not for 2"),
        (["nowhere", "--uot", "page.html"], "Unrecognized options"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(main, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []
