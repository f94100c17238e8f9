from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.run_comparison import compare_runs, mean_epoch
from cifarfast.errors import UserError
from cifarfast.range_test import Sweep
from cifarfast.recipe import RECIPES
from cifarfast.runfolder import Diverged, RunFolder
from cifarfast.summary import Summary
from tests.test_runfolder import CONFIG, row
from tests.test_summary import summary

ACCURACIES = (0.914, 0.915, 0.9145)


def write_run(
    folder: Path,
    *,
    accuracy: float = 0.914,
    seconds: float = 10.0,
    seed: int = 0,
    finished: bool = True,
    **changed: Any,
) -> Path:
    """A run of seven epochs, the first of which took twice as long; `changed` are other fields of its summary."""
    rng = np.random.default_rng(seed)
    rows = [row(epoch, accuracy, seconds * (2.0 if epoch == 1 else rng.uniform(0.99, 1.01))) for epoch in range(1, 8)]
    with RunFolder(folder) as run:
        run.write_config(CONFIG)
        run.rewrite(rows)
        if finished:
            run.write_summary(replace(summary(rows), seed=seed, **changed))
    return folder


def write_set(folder: Path, accuracies: Sequence[float] = ACCURACIES, **settings: Any) -> Path:
    """A folder of runs."""
    folder.mkdir()
    for seed, accuracy in enumerate(accuracies):
        write_run(folder / f"run-{seed}", accuracy=accuracy, seed=seed, **settings)
    return folder


def known() -> Summary:
    return summary([row(1)])


def refusal(before: Path, after: Path) -> str:
    with pytest.raises(UserError) as refused:
        compare_runs(before, after)
    return str(refused.value)


def test_a_speed_up_that_costs_accuracy_is_called_that(tmp_path: Path) -> None:
    before = write_set(tmp_path / "a")
    after = write_set(tmp_path / "b", [0.900, 0.901, 0.9005], seconds=8.0)
    found = compare_runs(before, after)
    assert found.in_short == "a speed-up that costs accuracy"
    assert (found.speed.verdict, found.accuracy.verdict) == ("faster", "inferior")
    assert found.speed.ratio.value == pytest.approx(10 / 8, rel=0.02)
    assert found.accuracy.points == pytest.approx(-1.4)
    assert found.regressed
    assert (found.before.runs, found.before.epoch_seconds.n) == (3, 3)
    assert (found.before.accuracy, found.before.accuracy_std) == pytest.approx((91.45, 0.05))
    assert found.before.epoch_seconds.median == pytest.approx(10.0, rel=0.01)
    assert found.after.epoch_seconds.high < 8.1  # without the first epochs


def test_other_pairs_of_verdicts(tmp_path: Path) -> None:
    before = write_set(tmp_path / "a")
    kept = compare_runs(before, write_set(tmp_path / "b", [0.9142, 0.9148, 0.9146], seconds=8.0))
    assert (kept.in_short, kept.regressed) == ("a speed-up that keeps the accuracy", False)
    slower = compare_runs(before, write_set(tmp_path / "c", seconds=12.0))
    assert (slower.in_short, slower.regressed) == ("speed: slower; accuracy: not inferior", True)
    assert compare_runs(before, write_set(tmp_path / "d", [0.90, 0.93])).accuracy.verdict == "not shown"
    lower = write_set(tmp_path / "e", [0.913, 0.9135, 0.9125])
    assert compare_runs(before, lower, margin=1.0).accuracy.verdict == "not inferior"
    assert compare_runs(before, lower, margin=0.0).accuracy.verdict == "inferior"


def test_single_runs_are_too_few_for_accuracy(tmp_path: Path) -> None:
    found = compare_runs(write_run(tmp_path / "a"), write_run(tmp_path / "b", seconds=8.0, seed=1))
    assert (found.before.runs, found.before.accuracy_std, found.accuracy.verdict) == (1, None, "too few runs")
    assert found.speed.verdict == "too few to tell"
    assert found.speed.ratio.value == pytest.approx(10 / 8, rel=0.02)
    assert found.in_short == "speed: too few to tell; accuracy: too few runs"


def test_a_run_counts_once_however_many_epochs_it_has(tmp_path: Path) -> None:
    """What drifts from run to run is the same in all epochs of one, and would be taken for a difference of the sets."""
    for name, seconds in (("a", (10.0, 11.0, 10.2)), ("b", (11.1, 10.4, 11.4))):
        for seed, usual in enumerate(seconds):
            write_run(tmp_path / name / str(seed), seed=seed, seconds=usual)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert found.speed.verdict == "no difference shown"
    assert found.speed.ratio.low < 1 < found.speed.ratio.high


def test_epochs_of_small_images_are_compared_with_their_like() -> None:
    recipe = replace(RECIPES["speedrun-91"], epochs=5)  # two of 24x24, then 32x32
    seconds = [30.0, 20.0, 32.0, 50.0, 33.0]
    rows = [row(epoch, epoch_seconds=one) for epoch, one in enumerate(seconds, start=1)]
    assert mean_epoch(recipe, rows) == pytest.approx((20 + 20 + 33 + 33 + 33) / 5)
    assert mean_epoch(recipe, rows[:1]) == 30.0
    assert mean_epoch(replace(recipe, low_resolution_share=0.0), rows) == 32.5


def test_epochs_of_two_passes_are_compared_with_their_like() -> None:
    recipe = replace(RECIPES["reference"], epochs=4, sharpness_radius=0.1, sharpness_share=0.5)
    rows = [row(epoch, epoch_seconds=one) for epoch, one in enumerate([30.0, 20.0, 41.0, 40.0], start=1)]
    assert mean_epoch(recipe, rows) == pytest.approx((20 + 20 + 40.5 + 40.5) / 4)


def test_a_run_of_one_epoch_has_only_its_first(tmp_path: Path) -> None:
    rows = [row(1, epoch_seconds=7.0)]
    with RunFolder(tmp_path / "run") as run:
        run.write_config(CONFIG)
        run.rewrite(rows)
        run.write_summary(summary(rows))
    assert compare_runs(tmp_path / "run", tmp_path / "run").before.epoch_seconds.median == 7.0


def test_what_was_changed_is_named(tmp_path: Path) -> None:
    runtime = replace(known().runtime, effective=replace(known().runtime.effective, compile=True, precision="bf16"))
    recipe = replace(known().recipe, epochs=7, batch_size=256)
    found = compare_runs(write_set(tmp_path / "a"), write_set(tmp_path / "b", runtime=runtime, recipe=recipe))
    assert found.forced == []
    assert found.changes == [
        "recipe.batch_size (512, 256)",
        "runtime.compile (False, True)",
        "runtime.precision (fp32, bf16)",
    ]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"fingerprint": replace(known().fingerprint, cpu="another")}, "cpu (a cpu, another)"),
        ({"data": replace(known().data, train_images=1000)}, "train_images (50000, 1000)"),
        ({"data": replace(known().data, test_images=1000)}, "test_images (10000, 1000)"),
        (
            {"data": replace(known().data, kind="custom", official=False, test_sha256="5" * 64)},
            f"data (cifar10, custom {known().data.train_sha256[:12]} 555555555555)",
        ),
        (
            {"runtime": replace(known().runtime, effective=replace(known().runtime.effective, threads=4))},
            "threads (2, 4)",
        ),
    ],
)
def test_what_is_not_comparable_is_refused_or_marked(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    before, after = write_set(tmp_path / "a"), write_set(tmp_path / "b", **changed)
    assert f"not comparable, they differ in {told}: " in refusal(before, after)
    assert compare_runs(before, after, force=True).forced == [told]


def test_a_set_holds_repetitions_of_one_run(tmp_path: Path) -> None:
    before, after = write_set(tmp_path / "a"), write_set(tmp_path / "b")
    write_run(after / "same seed", seed=2)
    assert f"seed 2 more than once within {after}" in refusal(before, after)
    write_run(after / "same seed too", seed=3, recipe=replace(known().recipe, epochs=7, max_lr=0.02))
    assert f"recipe.max_lr (0.017, 0.02) within {after}, seed 2 more" in refusal(before, after)


def test_the_rate_that_a_range_test_found_may_be_another_in_each_run(tmp_path: Path) -> None:
    before, after = write_set(tmp_path / "a"), tmp_path / "b"
    after.mkdir()
    for seed in (0, 1):
        recipe = replace(known().recipe, epochs=7, max_lr=0.01 + 0.001 * seed)
        write_run(after / str(seed), seed=seed, recipe=recipe, sweep=Sweep())
    found = compare_runs(before, after)
    assert found.forced == []
    assert found.changes[0] == "recipe.max_lr (0.017, auto)"


def test_with_muon_a_range_test_moves_all_its_rates(tmp_path: Path) -> None:
    for seed in (0, 1):
        rate = 0.01 + 0.001 * seed
        recipe = replace(known().recipe, epochs=7, optimizer="muon", max_lr=rate, head_lr=rate, bias_lr=rate)
        write_run(tmp_path / "a" / str(seed), seed=seed, recipe=recipe, sweep=Sweep())
    assert compare_runs(tmp_path / "a", tmp_path / "a").forced == []


def test_the_training_images_must_be_the_same_too(tmp_path: Path) -> None:
    custom = replace(known().data, kind="custom", official=False)
    before = write_set(tmp_path / "a", data=custom)
    after = write_set(tmp_path / "b", data=replace(custom, train_sha256="6" * 64))
    assert "they differ in data (custom " in refusal(before, after)


def test_a_run_that_diverged_is_called_that(tmp_path: Path) -> None:
    good, bad = write_set(tmp_path / "a"), write_run(tmp_path / "b" / "1", finished=False)
    with RunFolder(bad, resume=True) as folder:
        folder.write_diverged(Diverged(epochs=7, reason="loss inf"))
    assert f"{bad} diverged, and has no accuracy: move it away, and say so" in refusal(good, tmp_path / "b")


def test_folders_that_cannot_be_compared(tmp_path: Path) -> None:
    good = write_set(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        assert f"{folder} holds no run: name a run folder, or a folder of run folders" in refusal(good, folder)
    write_run(good / "unfinished", finished=False)
    assert "unfinished is unfinished: let the run end, or move it away" in refusal(good, good)


@pytest.mark.parametrize("forged", [{"seconds": -1.0}, {"seconds": 1e40}, {"accuracy": 1e308}])
def test_forged_figures(tmp_path: Path, forged: dict[str, float]) -> None:
    run = write_run(tmp_path / "run", **forged)  # type: ignore[arg-type]
    assert "run has a duration or an accuracy that cannot be: name another run" in refusal(run, run)


def test_epochs_that_a_longer_run_adds_do_not_count_yet(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with RunFolder(run, resume=True) as folder:
        folder.append(row(8, epoch_seconds=1000.0))
    assert compare_runs(run, run).before.epoch_seconds.median < 11
