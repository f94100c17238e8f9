from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.file_comparison import Unmatched, compare_files
from bench.records import read_bench
from cifarfast.errors import UserError
from tests.bench.made import entry, write_bench
from tests.bench.noise import timings


def timed(group: str, name: str, seconds: Sequence[float], **settings: Any) -> dict[str, Any]:
    """A benchmark with these rounds."""
    return {**entry(group, name, 1.0, **settings), "stats": {"data": list(seconds)}}


def session(path: Path, seed: int, *, slow_down: float = 1.0, **settings: Any) -> Path:
    """A file of three benchmarks of 20 rounds, `step` slowed down."""
    rng = np.random.default_rng(seed)
    factors = {"augment": 1.0, "step": slow_down, "epoch": 1.0}
    entries = [timed(name, "ours", list(factor * timings(rng, 20))) for name, factor in factors.items()]
    return write_bench(path, entries, **settings)


def test_what_became_slower_is_found(tmp_path: Path) -> None:
    before, after = session(tmp_path / "a.json", 1), session(tmp_path / "b.json", 2, slow_down=1.2)
    found = compare_files(before, after)
    assert [each.speed.verdict for each in found.benchmarks] == ["no difference shown", "slower", "no difference shown"]
    step = found.benchmarks[1]
    assert (step.group, step.name, step.before.n, step.after.n) == ("step", "ours", 20, 20)
    assert step.after.median / step.before.median == pytest.approx(1 / step.speed.ratio.value)
    assert step.speed.ratio.value == pytest.approx(1 / 1.2, rel=0.05)
    assert found.regressed
    assert not compare_files(after, before).regressed
    assert [each.speed.verdict for each in compare_files(after, before).benchmarks][1] == "faster"
    assert compare_files(before, after, minimum_effect=0.25).benchmarks[1].speed.verdict == "no difference shown"
    assert (found.before.path, found.after.path, found.forced, found.unmatched) == (before, after, [], [])
    assert (found.before.git_commit, found.before.git_dirty) == ("0" * 40, False)


def test_all_benchmarks_are_corrected_for_together(tmp_path: Path) -> None:
    before, after = session(tmp_path / "a.json", 1), session(tmp_path / "b.json", 2, slow_down=1.06)
    alone = [write_bench(path.with_suffix(".one"), [timed("step", "ours", _step(path))]) for path in (before, after)]
    assert compare_files(*alone).benchmarks[0].speed.p < compare_files(before, after).benchmarks[1].speed.p


def _step(path: Path) -> list[float]:
    return read_bench(path).measured[1].seconds


def test_what_is_compared_is_the_time_for_the_same_work(tmp_path: Path) -> None:
    before = write_bench(tmp_path / "a.json", [timed("checkpoint", "whole", [1.0] * 9, work=1_000_000, unit="bytes")])
    after = write_bench(tmp_path / "b.json", [timed("checkpoint", "whole", [1.0] * 9, work=1_005_000, unit="bytes")])
    assert compare_files(before, after).benchmarks[0].speed.ratio.value == pytest.approx(1.005)


def test_a_noisy_benchmark_is_marked(tmp_path: Path) -> None:
    quiet, loud = [1 + 0.001 * i for i in range(9)], [1 + 0.1 * i for i in range(9)]
    before = write_bench(tmp_path / "a.json", [timed("step", "a", quiet), timed("step", "b", quiet)])
    after = write_bench(tmp_path / "b.json", [timed("step", "a", quiet), timed("step", "b", loud)])
    for pair in ((before, after), (after, before)):
        assert [each.noisy for each in compare_files(*pair).benchmarks] == [False, True]


def test_what_only_one_file_has_is_named_with_the_reason(tmp_path: Path) -> None:
    both, gone, new = (timed("step", name, [1.0] * 5) for name in ("both", "gone", "new"))
    before = write_bench(tmp_path / "a.json", [gone, both])
    skipped = [{"group": "step", "name": "gone", "reason": "no such kernel"}]
    after = write_bench(tmp_path / "b.json", [both, new], skipped=skipped)
    found = compare_files(before, after)
    assert [each.name for each in found.benchmarks] == ["both"]
    assert found.unmatched == [
        Unmatched(group="step", name="gone", only="before", reason="no such kernel"),
        Unmatched(group="step", name="new", only="after", reason=None),
    ]


def test_files_without_a_common_benchmark_are_refused(tmp_path: Path) -> None:
    before, after = (write_bench(tmp_path / f"{n}.json", [timed("step", n, [1.0] * 5)]) for n in "ab")
    with pytest.raises(UserError, match="have no benchmark in common"):
        compare_files(before, after, force=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"cpu": "another"}, "cpu (a cpu, another)"),
        ({"torch_threads": 4}, "torch_threads (2, 4)"),
        ({"packages": {"torch": "2.15.0", "ffcv": None}}, "packages.torch (2.14.1, 2.15.0)"),
        ({"data": "synthetic"}, "data (cifar10, synthetic)"),
        ({"profile": "quick"}, "profile (full, quick)"),
        ({"batch_size": 32}, "batch size (512, 32)"),
    ],
)
def test_what_is_not_comparable_is_refused_or_marked(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    before, after = session(tmp_path / "a.json", 1), session(tmp_path / "b.json", 2, **changed)
    with pytest.raises(UserError) as refused:
        compare_files(before, after)
    assert f"they differ in {told}: " in str(refused.value)
    assert compare_files(before, after, force=True).forced == [told]


def test_another_commit_and_another_day_are_comparable(tmp_path: Path) -> None:
    before = session(tmp_path / "a.json", 1)
    after = session(tmp_path / "b.json", 2, git_commit="1" * 40, git_dirty=True, date="2027-01-02T03:04:05+00:00")
    assert compare_files(before, after).forced == []


@pytest.mark.parametrize(
    ("other", "told"),
    [({"work": 1024}, "work of step ours (512 images, 1024 images)"), ({"unit": None}, "(512 images, 512 times)")],
)
def test_other_work_is_not_comparable(tmp_path: Path, other: dict[str, Any], told: str) -> None:
    before = write_bench(tmp_path / "a.json", [timed("step", "ours", [1.0] * 5)])
    after = write_bench(tmp_path / "b.json", [timed("step", "ours", [1.0] * 5, **other)])
    with pytest.raises(UserError) as refused:
        compare_files(before, after)
    assert told in str(refused.value)
