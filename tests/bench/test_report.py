from pathlib import Path

import pytest

from bench.report import main
from tests.bench.made import entry, whole_run, write_bench, write_run
from tests.commands import refusal


def test_files_and_folders_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = write_bench(tmp_path / "bench.json", [entry("step", "a", 100)])
    run = write_run(whole_run(tmp_path / "run", 0.92))
    main([str(run), str(bench)])
    names = ("report.html", "report.md", "report.json")
    assert capsys.readouterr() == ("".join(f"saved bench-report/{name}\n" for name in names), "")
    assert "92.00" in (tmp_path / "bench-report" / "report.md").read_text()
    main([str(bench), "--out", str(tmp_path / "other" / "place")])
    assert {path.name for path in (tmp_path / "other" / "place").iterdir()} == {"plots", *names}


@pytest.mark.usefixtures("restored_sigterm")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which benchmarks? name a file of pytest bench --benchmark-json"),
        (["run"], "which benchmarks? name a file"),
        (["nowhere.json"], "nowhere.json"),
        (["text.json"], "text.json is not JSON"),
        (["bench.json", "empty"], "empty holds no run"),
        (["bench.json", "run", "run"], "run is named twice"),
        (["bench.json", "--uot", "page"], "Unrecognized options"),
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
    write_bench(tmp_path / "bench.json", [entry("step", "a", 100)])
    write_run(whole_run(tmp_path / "run", 0.92))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("no JSON")
    assert words in refusal(main, capsys, *arguments)
    assert not (tmp_path / "bench-report").exists()
