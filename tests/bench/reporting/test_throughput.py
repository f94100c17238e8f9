from pathlib import Path

import pytest

from bench.records import BenchFile, read_bench
from bench.reporting.throughput import GROUPS, Absence, fastest, find_contests, last_measured
from cifarfast.errors import UserError
from tests.bench.made import entry, everything, write_bench


def files(folder: Path, *entries: list[dict[str, object]]) -> list[BenchFile]:
    return [read_bench(write_bench(folder / f"{place}.json", found)) for place, found in enumerate(entries)]


def test_a_variant_is_held_against_the_baseline_of_its_contest(tmp_path: Path) -> None:
    step = [
        entry("step", "ordinary", 100, baseline="ordinary", batch_size=512),
        entry("step", "faster", 150, baseline="ordinary"),
        entry("step", "wild", 100, baseline="ordinary", spread=0.4),
    ]
    (contest,) = find_contests(files(tmp_path, step))
    ordinary, faster, wild = contest.rows
    assert (contest.group, contest.baseline, contest.absent) == ("step", "ordinary", [])
    assert ordinary.ratio is None
    assert faster.ratio is not None
    assert faster.rate is not None
    assert faster.ratio.value == pytest.approx(1.5)
    assert (faster.ratio.low, faster.ratio.high) == pytest.approx((1.5, 1.5))  # round by round: pairs
    assert faster.rate.median == pytest.approx(150, rel=0.01)
    assert (ordinary.noisy, faster.noisy, wild.noisy) == (False, False, True)
    assert (ordinary.batch_size, faster.batch_size) == (512, None)


def test_where_only_the_time_matters_there_is_no_rate(tmp_path: Path) -> None:
    (contest,) = find_contests(files(tmp_path, [entry("start-up", "eager", 0.5, work=1, unit=None, rounds=1)]))
    (row,) = contest.rows
    assert row.rate is None
    assert row.seconds.median == 2.0


def test_without_its_baseline_a_contest_has_no_ratios(tmp_path: Path) -> None:
    (contest,) = find_contests(files(tmp_path, [entry("step", "one", 100, baseline="gone")]))
    assert contest.baseline is None
    assert contest.rows[0].ratio is None


def test_rounds_that_are_not_equally_many_are_no_pairs(tmp_path: Path) -> None:
    step = [entry("step", "a", 100, baseline="a", rounds=7), entry("step", "b", 150, baseline="a", rounds=5)]
    (contest,) = find_contests(files(tmp_path, step))
    ratio = contest.rows[1].ratio
    assert ratio is not None
    assert not ratio.above(1.499)
    assert not ratio.below(1.501)


def test_the_order_is_that_of_the_report(tmp_path: Path) -> None:
    found = [contest.group for contest in find_contests(files(tmp_path, [entry("mine", "a", 1), *everything()[::-1]]))]
    assert found == [*(group for group in GROUPS if group != "convert"), "mine"]


def test_what_was_skipped_is_in_its_contest(tmp_path: Path) -> None:
    skipped = [
        {"group": "step", "name": "fp16", "reason": "fp16 is for CUDA"},
        {"group": "convert", "name": "ffcv", "reason": "ffcv is not installed"},
    ]
    file = read_bench(write_bench(tmp_path / "a.json", [entry("step", "fp32", 1)], skipped=skipped))
    step, convert = find_contests([file])
    assert step.absent == [Absence(name="fp16", reason="fp16 is for CUDA")]
    assert (convert.rows, convert.absent) == ([], [Absence(name="ffcv", reason="ffcv is not installed")])


def test_of_several_files_the_last_that_has_a_group_counts(tmp_path: Path) -> None:
    both = files(tmp_path, [entry("step", "a", 1), entry("augment", "a", 1)], [entry("step", "b", 2)])
    assert [one.name for one in last_measured(both, "step")] == ["b"]
    assert [one.name for one in last_measured(both, "augment")] == ["a"]
    assert last_measured(both, "epoch") == []
    assert [(contest.group, contest.source) for contest in find_contests(both)] == [
        ("augment", 0),
        ("step", 0),
        ("step", 1),
    ]


def test_the_fastest_is_the_one_with_the_highest_rate_whatever_its_work(tmp_path: Path) -> None:
    (file,) = files(tmp_path, [entry("step", "small", 50, work=8), entry("step", "large", 60, work=512)])
    best = fastest(file.measured)
    assert best is not None
    assert best.name == "large"
    assert fastest([]) is None


def test_different_units_in_one_contest_are_refused(tmp_path: Path) -> None:
    found = files(tmp_path, [entry("step", "a", 1), entry("step", "b", 1, unit="bytes")])
    with pytest.raises(UserError, match=r"0.json measures step in bytes and in images: make it again"):
        find_contests(found)
    assert find_contests(files(tmp_path, [entry("peaks", "a", 1, unit="FLOP"), entry("peaks", "b", 1, unit="bytes")]))
