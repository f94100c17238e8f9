from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.reporting.accuracy import find_accuracies, why_not
from cifarfast.errors import UserError
from cifarfast.recipe import RECIPES, Recipe
from cifarfast.runfolder import Diverged, Run, RunFolder, read_run
from cifarfast.summary import Summary
from tests.bench.made import whole_run
from tests.test_runfolder import CONFIG
from tests.test_summary import used


def changed(run: Run, **fields: Any) -> Run:
    assert run.summary is not None
    return replace(run, summary=replace(run.summary, **fields))


def summary_of(run: Run) -> Summary:
    assert run.summary is not None
    return run.summary


def test_a_recipe_without_runs_is_not_measured() -> None:
    accuracies, left_out = find_accuracies([])
    assert [(one.recipe, one.n, one.mean, one.mean_meets_target) for one in accuracies] == [
        (name, 0, None, None) for name in RECIPES
    ]
    assert left_out == []


def test_mean_spread_and_target() -> None:
    runs = [whole_run(Path(f"run{seed}"), 0.91 + seed / 100, seed=seed) for seed in range(3)]
    (found, *_), left_out = find_accuracies(runs)
    assert left_out == []
    assert (found.recipe, found.target, found.n, found.seeds, found.met) == ("reference", 0.9142, 3, 3, 2)
    assert found.mean == pytest.approx(0.92)
    assert found.deviation == pytest.approx(0.01)
    assert (found.low, found.high) == (0.91, 0.93)
    assert found.mean_meets_target is True
    assert found.runs == ["run0", "run1", "run2"]


def test_one_run_has_no_spread_and_the_same_seed_twice_is_told() -> None:
    (one, *_), _ = find_accuracies([whole_run(Path("a"), 0.9)])
    assert (one.n, one.deviation, one.mean_meets_target, one.met) == (1, None, False, 0)
    again = changed(whole_run(Path("b"), 0.91), started="2026-02-02T00:00:00+00:00")
    (two, *_), _ = find_accuracies([whole_run(Path("a"), 0.9), again])
    assert (two.n, two.seeds) == (2, 1)


def test_epoch_times_of_different_machines_are_apart() -> None:
    first = whole_run(Path("a"), 0.9, epoch_seconds=100)
    second = whole_run(Path("b"), 0.9, seed=1, epoch_seconds=120)
    other = whole_run(Path("c"), 0.9, seed=2, epoch_seconds=10)
    other = changed(other, fingerprint=replace(summary_of(other).fingerprint, cpu="a faster cpu"))
    runtime = summary_of(first).runtime
    compiled = replace(runtime, effective=replace(runtime.effective, compile=True))
    quick = changed(whole_run(Path("d"), 0.9, seed=3, epoch_seconds=50), runtime=compiled)
    (found, *_), _ = find_accuracies([first, second, other, quick])
    assert found.n == 4
    times = [(time.seconds, time.low, time.high, time.n) for time in found.epoch_times]
    assert times == [(110, 100, 120, 2), (10, 10, 10, 1), (50, 50, 50, 1)]
    machines = [time.machine for time in found.epoch_times]
    assert machines == [
        "a cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1, channels-last, loader resident",
        "a faster cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1, channels-last, loader resident",
        "a cpu, 2 threads, AVX2, fp32, compiled, torch 2.14.1, channels-last, loader resident",
    ]


def test_epoch_times_of_machines_that_look_alike_are_apart_too() -> None:
    first, second = (whole_run(Path(name), 0.9, seed=seed) for seed, name in enumerate("ab"))
    second = changed(second, fingerprint=replace(summary_of(second).fingerprint, memory_bytes=5))
    (found, *_), _ = find_accuracies([first, second])
    assert [time.machine.rpartition(", ")[2] for time in found.epoch_times] == [
        "1 of 2 that differ in memory_bytes",
        "2 of 2 that differ in memory_bytes",
    ]


def test_a_run_that_diverged_is_called_that(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(CONFIG)
        folder.write_diverged(Diverged(epochs=1, reason="loss inf"))
    _, (left,) = find_accuracies([read_run(tmp_path / "run")])
    assert left.reason == "diverged"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (replace(whole_run(Path("a"), 0.9), summary=None), "unfinished"),
        (changed(whole_run(Path("a"), 0.9), data=replace(used(), kind="synthetic")), "synthetic data"),
        (changed(whole_run(Path("a"), 0.9), data=used(official=False)), "not the official CIFAR-10"),
        (
            changed(whole_run(Path("a"), 0.9), data=used(train_images=512)),
            "shortened: 512 training and 10,000 test images",
        ),
        (whole_run(Path("a"), 0.9, epochs=1), "not reference as it is: it differs in epochs (20, 1)"),
        (
            changed(
                whole_run(Path("a"), 0.9), recipe=Recipe(augmentation=replace(Recipe().augmentation, cutout_size=4))
            ),
            "not reference as it is: it differs in augmentation.cutout_size (8, 4)",
        ),
        (changed(whole_run(Path("a"), 0.9), recipe=Recipe(name="mine")), "recipe mine is not known"),
    ],
)
def test_what_is_no_measurement_of_a_recipe(run: Run, reason: str) -> None:
    assert why_not(run) == reason
    (found, *_), left_out = find_accuracies([run])
    assert found.n == 0
    assert [(one.run, one.reason) for one in left_out] == [("a", reason)]


def test_a_run_that_ended_early_is_shortened() -> None:
    run = whole_run(Path("a"), 0.9)
    assert why_not(replace(run, rows=run.rows[:19])) == "shortened: 19 of 20 epochs"


def test_a_copy_of_a_run_is_not_another() -> None:
    runs = [whole_run(Path("a"), 0.9), whole_run(Path("copy"), 0.9)]
    (found, *_), left_out = find_accuracies(runs)
    assert (found.n, [(one.run, one.reason) for one in left_out]) == (1, [("copy", "a copy of another run")])


def test_a_run_named_twice_is_refused(tmp_path: Path) -> None:
    runs = [whole_run(tmp_path / "a", 0.9), whole_run(tmp_path / "b" / ".." / "a", 0.9)]
    with pytest.raises(UserError, match="a is named twice: name it once"):
        find_accuracies(runs)
