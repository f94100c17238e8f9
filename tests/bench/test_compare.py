import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.compare import main
from tests.bench.made import entry, write_bench
from tests.bench.test_file_comparison import session
from tests.bench.test_run_comparison import known, write_run, write_set
from tests.commands import command, refusal, refused


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The later one has a slower step."""
    return session(tmp_path / "a.json", 1), session(tmp_path / "b.json", 2, slow_down=1.2)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    main(list(map(str, arguments)))
    return capsys.readouterr().out


def test_a_regression_is_printed_and_told_by_the_exit_code_if_asked(tmp_path: Path, files: tuple[Path, Path]) -> None:
    without = command("bench.compare", *files, cwd=tmp_path)
    asked = command("bench.compare", *files, "--fail-on-regression", cwd=tmp_path)
    assert (without.returncode, asked.returncode) == (0, 1)
    assert without.stdout == asked.stdout
    assert without.stderr == asked.stderr == ""
    lines = asked.stdout.splitlines()
    assert lines[0].startswith(f"A: {files[0]}, measured 2026-01-02")
    assert [line.split()[:2] for line in lines[4:7]] == [["augment", "ours"], ["step", "ours"], ["epoch", "ours"]]
    assert [line.endswith("slower") for line in lines[4:7]] == [False, True, False]
    assert "20, 20  0.8" in lines[5]
    assert "more than 3 % of the time" in lines[-3]


def test_no_regression_no_exit_code(capsys: pytest.CaptureFixture[str], files: tuple[Path, Path]) -> None:
    before, after = files
    assert "faster" in shown(capsys, after, before, "--fail-on-regression").splitlines()[5]
    assert "slower\n" not in shown(capsys, before, before, "--fail-on-regression")
    assert "slower\n" not in shown(capsys, before, after, "--fail-on-regression", "--minimum-effect", "30")


def test_files_as_json(capsys: pytest.CaptureFixture[str], files: tuple[Path, Path]) -> None:
    before, after = files
    with pytest.raises(SystemExit) as leaving:
        shown(capsys, before, after, "--json", "--fail-on-regression", "--minimum-effect", "5")
    assert leaving.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["before"]["path"], found["level"], found["minimum_effect"]) == (str(before), 0.05, 0.05)
    step = found["benchmarks"][1]
    assert (step["group"], step["name"], step["speed"]["verdict"], step["after"]["n"]) == ("step", "ours", "slower", 20)
    assert step["speed"]["ratio"]["low"] < 1 / 1.2 < step["speed"]["ratio"]["high"]
    assert step["speed"]["p"] < 0.05


def test_doubts_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    skipped = [{"group": "step", "name": "gone", "reason": "no \x1b[1mkernel"}]
    entries = [entry("step", "few", 1.0, rounds=1), entry("step", "wide", 1.0, rounds=20, spread=0.3)]
    before = write_bench(tmp_path / "a.json", [*entries, entry("step", "gone", 1.0)])
    after = write_bench(tmp_path / "b.json", [*entries, entry("peaks", "new", 1.0)], skipped=skipped, git_dirty=True)
    told = shown(capsys, before, after).splitlines()
    assert told[1].endswith("commit " + 40 * "0" + ", changed")
    assert told[4].endswith("none   too few to tell")
    assert told[5].endswith("ranks  no difference shown, noisy")
    assert told[6:8] == [r"step gone: only in A: no \x1b[1mkernel", "peaks new: only in B"]


def test_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before, after = write_set(tmp_path / "a"), write_set(tmp_path / "b", [0.900, 0.901], seconds=8.0)
    told = shown(capsys, before, after)
    assert "91.45 % (std 0.05)" in told
    assert "A run is one round, and with 2 of them the interval of the epochs is too narrow, or none.\n" in told
    assert "accuracy, B less A: -1.40 points (-1.70 to -1.10); 0.25 may be lost: inferior" in told
    assert told.endswith("in short: a speed-up that costs accuracy\n")
    assert "2 may be lost: not inferior" in shown(capsys, before, after, "--margin", "2", "--fail-on-regression")
    with pytest.raises(SystemExit) as leaving:
        shown(capsys, before, after, "--json", "--fail-on-regression")
    assert leaving.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert found["in_short"] == "a speed-up that costs accuracy"
    assert (found["accuracy"]["verdict"], found["speed"]["verdict"]) == ("inferior", "faster")
    assert (found["after"]["path"], found["after"]["runs"]) == (str(after), 2)


def test_single_runs_and_what_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before, after = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)
    told = shown(capsys, before, after)
    assert "accuracy, B less A: +0.00 points; 0.25 may be lost: too few runs" in told
    assert "differs" not in told
    longer = write_run(tmp_path / "c", recipe=replace(known().recipe, epochs=9))
    assert "differs: recipe.epochs (7, 9)\n" in shown(capsys, before, longer)


def test_what_is_not_comparable_is_refused_and_marked_if_forced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: tuple[Path, Path]
) -> None:
    before, other = files[0], session(tmp_path / "other.json", 2, cpu="another", data="synthetic")
    done = command("bench.compare", before, other, "--fail-on-regression", cwd=tmp_path)
    assert done.stdout == ""
    told = refused(done.returncode, done.stderr)
    assert "they differ in cpu (a cpu, another), data (cifar10, synthetic): measure both alike" in told
    assert "--force" in told
    forced = shown(capsys, before, other, "--force")
    mark = "FORCED, these are not comparable: they differ in cpu (a cpu, another), data (cifar10, synthetic)\n"
    assert forced.startswith(mark)
    assert json.loads(shown(capsys, before, other, "--force", "--json"))["forced"][0] == "cpu (a cpu, another)"
    runs = write_set(tmp_path / "a"), write_set(tmp_path / "b", data=replace(known().data, test_images=10))
    assert shown(capsys, *runs, "--force").startswith("FORCED, these are not comparable: they differ in test_images")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.json"], "B"),
        (["a.json", "nowhere.json"], "nowhere.json does not exist: name a file of pytest bench, a run folder or"),
        (["nowhere", "."], "nowhere does not exist"),
        (["a.json", "."], "only one of a.json and . is a folder: name two files, or two folders of runs"),
        ([".", "."], ". holds no run: name a run folder, or a folder of run folders"),
        (["a.json", "a.json", "--minimum-effect", "-1"], "minimum_effect must be at least 0 and below 100.0, not -1.0"),
        (["a.json", "a.json", "--margin", "nan"], "margin must be at least 0 and below 100.0, not nan"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    session(Path("a.json"), 1)
    assert told in refusal(main, capsys, *arguments)
