"""Epoch time beside the accuracy that it buys: whole runs of the recipes, and only those."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from cifarfast.comparable import differing, flat
from cifarfast.errors import UserError
from cifarfast.recipe import RECIPES, Recipe, Tta
from cifarfast.runfolder import Run, read_diverged
from cifarfast.studying.figures import machine_key, machine_names
from cifarfast.summary import Summary, target_met


@dataclass(frozen=True, kw_only=True)
class EpochTime:
    """How long an epoch of a recipe takes on one machine, run one way."""

    machine: str
    """The processor and how it was used."""
    seconds: float
    """The median of the runs' medians; training alone."""
    low: float
    """The lowest of them."""
    high: float
    """The highest of them."""
    n: int
    """Runs."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a recipe reached."""

    recipe: str
    """Its name."""
    epochs: int
    """Its length."""
    tta: Tta
    """Test-time augmentation that its accuracies are with."""
    target: float
    """Its target, 0 to 1."""
    n: int
    """Whole runs of it on the real CIFAR-10; 0 is 'not measured'."""
    seeds: int
    """Different seeds among them: two runs with one seed are hardly two."""
    mean: float | None
    """Mean test accuracy after the last epoch; None if not measured."""
    deviation: float | None
    """Standard deviation; None for less than two runs."""
    low: float | None
    """The lowest."""
    high: float | None
    """The highest."""
    met: int
    """Runs that reached the target."""
    mean_meets_target: bool | None
    """Whether the mean reaches it; None if not measured."""
    runs: list[str]
    """Their folders."""
    epoch_times: list[EpochTime]
    """One for every machine and way to run."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A run that says nothing about a recipe."""

    run: str
    """Its folder."""
    reason: str
    """Why."""


def find_accuracies(runs: Sequence[Run]) -> tuple[list[Accuracy], list[LeftOut]]:
    """A row for every recipe there is, and the runs that are in none.

    Raises:
        UserError: a run is named twice.
    """
    counted: dict[str, Summary] = {}
    left_out = []
    for run in runs:
        if [other.path.resolve() for other in runs].count(run.path.resolve()) > 1:
            raise UserError(f"{run.path} is named twice: name it once")
        reason = why_not(run, counted.values())
        if reason is not None:
            left_out.append(LeftOut(run=str(run.path), reason=reason))
        elif run.summary is not None:
            counted[str(run.path)] = run.summary
    return [_accuracy(recipe, _of(recipe, counted)) for recipe in RECIPES.values()], left_out


def why_not(run: Run, counted: Iterable[Summary] = ()) -> str | None:
    """Why a run is no measurement of a recipe; None if it is one.

    Args:
        counted: those that are; a copy of one of them is not another.
    """
    summary = run.summary
    if summary is None:
        return "unfinished" if read_diverged(run.path) is None else "diverged"
    if summary.data.kind == "synthetic":
        return "synthetic data"
    if not summary.data.official:
        return "not the official CIFAR-10"
    if not summary.data.whole:
        return f"shortened: {summary.data.train_images:,} training and {summary.data.test_images:,} test images"
    recipe = RECIPES.get(summary.recipe.name)
    if recipe is None:
        return f"recipe {summary.recipe.name} is not known"
    if summary.recipe != recipe:
        differences = differing([flat(asdict(recipe)), flat(asdict(summary.recipe))])
        return f"not {recipe.name} as it is: it differs in {', '.join(differences)}"
    if target_met(recipe, summary.data, run.rows[-1]) is None:
        return f"shortened: {run.rows[-1].epoch} of {recipe.epochs} epochs"
    return "a copy of another run" if summary in counted else None


def _of(recipe: Recipe, runs: Mapping[str, Summary]) -> dict[str, Summary]:
    return {folder: run for folder, run in runs.items() if run.recipe == recipe}


def _accuracy(recipe: Recipe, runs: Mapping[str, Summary]) -> Accuracy:
    values = [run.test_accuracy for run in runs.values()]
    mean = statistics.mean(values) if values else None
    return Accuracy(
        recipe=recipe.name,
        epochs=recipe.epochs,
        tta=recipe.tta,
        target=recipe.target_accuracy,
        n=len(values),
        seeds=len({run.seed for run in runs.values()}),
        mean=mean,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        low=min(values, default=None),
        high=max(values, default=None),
        met=sum(value >= recipe.target_accuracy for value in values),
        mean_meets_target=None if mean is None else mean >= recipe.target_accuracy,
        runs=list(runs),
        epoch_times=_epoch_times(runs.values()),
    )


def _epoch_times(runs: Collection[Summary]) -> list[EpochTime]:
    names = machine_names((run.fingerprint, run.runtime.effective) for run in runs)
    times: dict[str, list[float]] = {}
    for run in runs:
        name = names[machine_key(run.fingerprint, run.runtime.effective)]
        times.setdefault(name, []).append(run.epoch_seconds.median or run.epoch_seconds.first)
    return [
        EpochTime(machine=place, seconds=statistics.median(found), low=min(found), high=max(found), n=len(found))
        for place, found in times.items()
    ]
