"""Two sets of runs: whether epochs became shorter, and what of the accuracy was lost."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.comparable import refuse_unless_forced
from bench.records import possible
from bench.statistics import Quartiles, quartiles
from bench.verdicts import LEVEL, MINIMUM_EFFECT, SpeedVerdict, in_short, judge_speed
from cifarfast.accuracy import MARGIN, AccuracyVerdict, judge_accuracy
from cifarfast.comparable import differing, flat, machine_facts
from cifarfast.errors import UserError
from cifarfast.metrics import EpochRow
from cifarfast.recipe import RATES, Recipe
from cifarfast.runfolder import CONFIG_NAME, read_diverged, read_run
from cifarfast.summary import Summary


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What is compared of a run."""

    path: Path
    """Its folder."""
    summary: Summary
    """What came out."""
    epoch_seconds: float
    """Of a mean epoch, see `mean_epoch`."""


@dataclass(frozen=True, kw_only=True)
class RunSet:
    """Runs that are repetitions of one another."""

    path: Path
    """The folder that was named."""
    runs: int
    """How many there are in it."""
    accuracy: float
    """Mean test accuracy after the last epoch, in percent."""
    accuracy_std: float | None
    """Standard deviation of the runs, in points; None of a single one."""
    epoch_seconds: Quartiles
    """Training seconds of an epoch, one figure a run."""


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Two sets."""

    before: RunSet
    """The earlier runs."""
    after: RunSet
    """The later ones."""
    forced: list[str]
    """What differs although it must not."""
    changes: list[str]
    """What of recipe and runtime differs between the sets."""
    level: float
    """Level of the verdict on speed; that on accuracy has half of it."""
    minimum_effect: float
    """Share of the time beyond which a difference counts."""
    margin: float
    """Points of accuracy that may be lost."""
    speed: SpeedVerdict
    """Of the seconds of an epoch: a run is a round, for what drifts between runs is the same in all their epochs."""
    accuracy: AccuracyVerdict
    """Of the runs."""
    in_short: str
    """Both verdicts in words."""

    @property
    def regressed(self) -> bool:
        """Whether epochs became slower or accuracy was lost."""
        return self.speed.verdict == "slower" or self.accuracy.verdict == "inferior"


def compare_runs(
    before: Path, after: Path, *, minimum_effect: float = MINIMUM_EFFECT, margin: float = MARGIN, force: bool = False
) -> RunComparison:
    """Compare two run folders, or two folders of run folders.

    Args:
        minimum_effect: see `judge_speed`; the rounds are runs.
        margin: see `judge_accuracy`.
        force: compare what is not comparable, and say so in the result.

    Raises:
        UserError: there is no run, or one is unfinished or damaged, or they are not comparable.
    """
    earlier, later = _read_set(before), _read_set(after)
    differences = differing([_facts(run.summary) for run in [*earlier, *later]])
    for path, runs in ((before, earlier), (after, later)):
        differences += [f"{what} within {path}" for what in _mixed(runs)]
    refuse_unless_forced(before, after, differences, force=force)
    (speed,) = judge_speed([(_seconds(earlier), _seconds(later))], minimum_effect=minimum_effect)
    accuracy = judge_accuracy(_accuracies(earlier), _accuracies(later), margin=margin)
    return RunComparison(
        before=_run_set(before, earlier),
        after=_run_set(after, later),
        forced=differences,
        changes=differing([_settings(earlier[0].summary), _settings(later[0].summary)]),
        level=LEVEL,
        minimum_effect=minimum_effect,
        margin=margin,
        speed=speed,
        accuracy=accuracy,
        in_short=in_short(speed.verdict, accuracy.verdict),
    )


def _read_set(path: Path) -> list[FinishedRun]:
    is_run = (path / CONFIG_NAME).exists()
    if not (folders := [path] if is_run else sorted(found.parent for found in path.glob(f"*/{CONFIG_NAME}"))):
        raise UserError(f"{path} holds no run: name a run folder, or a folder of run folders")
    return [_read_finished(folder) for folder in folders]


def _read_finished(folder: Path) -> FinishedRun:
    run = read_run(folder)
    if run.summary is None:
        if read_diverged(folder) is not None:
            raise UserError(f"{folder} diverged, and has no accuracy: move it away, and say so beside what is compared")
        raise UserError(f"{folder} is unfinished: let the run end, or move it away")
    rows = run.rows[: run.summary.epochs]
    if not rows or not all(possible(row.epoch_seconds) for row in rows) or not 0 <= run.summary.test_accuracy <= 1:
        raise UserError(f"{folder} has a duration or an accuracy that cannot be: name another run")
    return FinishedRun(path=folder, summary=run.summary, epoch_seconds=mean_epoch(run.summary.recipe, rows))


def mean_epoch(recipe: Recipe, rows: Sequence[EpochRow]) -> float:
    """Training seconds of a run's epochs, in the mean, each as long as the median of those that do the same.

    The first of the run, which warms up, is in no median that has another.
    """
    works = [recipe.work(row.epoch - 1) for row in rows]
    seconds = {
        work: [row.epoch_seconds for row, other in zip(rows, works, strict=True) if other == work]
        for work in dict.fromkeys(works)
    }
    medians = {
        work: statistics.median(found[1:] or found if work == works[0] else found) for work, found in seconds.items()
    }
    return statistics.fmean(medians[work] for work in works)


def _facts(summary: Summary) -> dict[str, Any]:
    """What must be the same in all runs of both sets."""
    data, effective = summary.data, summary.runtime.effective
    return {
        **machine_facts(summary.fingerprint),
        "device": effective.device,
        "threads": effective.threads,
        "data": data.kind if data.official else f"{data.kind} {data.train_sha256[:12]} {data.test_sha256[:12]}",
        "train_images": data.train_images,
        "test_images": data.test_images,
    }


def _settings(summary: Summary) -> dict[str, Any]:
    """What must be the same in all runs of one set: all but the seed, and the rates that a range test found with it."""
    recipe, effective = asdict(summary.recipe), asdict(summary.runtime.effective)
    if summary.sweep is None:
        return flat({"recipe": recipe, "runtime": effective})
    found = RATES if summary.recipe.optimizer == "muon" else RATES[:1]
    recipe |= dict.fromkeys(found, "auto")
    return flat({"recipe": recipe, "sweep": asdict(summary.sweep), "runtime": effective})


def _mixed(runs: Sequence[FinishedRun]) -> list[str]:
    """Why these are not independent repetitions of one run."""
    seeds = [run.summary.seed for run in runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    return differing([_settings(run.summary) for run in runs]) + [f"seed {seed} more than once" for seed in twice]


def _seconds(runs: Sequence[FinishedRun]) -> list[float]:
    return [run.epoch_seconds for run in runs]


def _accuracies(runs: Sequence[FinishedRun]) -> list[float]:
    return [100 * run.summary.test_accuracy for run in runs]


def _run_set(path: Path, runs: Sequence[FinishedRun]) -> RunSet:
    accuracies = _accuracies(runs)
    return RunSet(
        path=path,
        runs=len(runs),
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None,
        epoch_seconds=quartiles(_seconds(runs)),
    )
