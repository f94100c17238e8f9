"""The figures of a study as a person reads them, on a terminal and on a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifarfast.studying.figures import Entrant, Figures, Level, RecipeFigures
from cifarfast.summary import Data

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of words; the first column names the recipe."""

    title: str
    """What is in it."""
    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """A cell a column."""


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """Why accuracies are not those of CIFAR-10."""

    kind: str
    """In two or three words."""
    reason: str
    """In a sentence."""


def caveat_of(data: Data | None) -> Caveat | None:
    """What a reader must be told first; None of the whole, real CIFAR-10."""
    if data is None or (data.official and data.whole):
        return None
    if data.kind == "synthetic":
        reason = "These images are a stand-in, drawn by a program: the accuracies say nothing about CIFAR-10."
        return Caveat(kind="Synthetic data", reason=reason)
    if not data.official:
        reason = "These images are not byte for byte those of CIFAR-10: the accuracies are of another task."
        return Caveat(kind="Not CIFAR-10", reason=reason)
    reason = (
        f"{data.train_images:,} of {data.train_images_available:,} training images and {data.test_images:,} of "
        f"{data.test_images_available:,} test images were used: the accuracies are not those of the whole."
    )
    return Caveat(kind="Part of CIFAR-10", reason=reason)


def results(figures: Figures) -> Table:
    """The accuracies of every recipe, and of other programs."""
    return Table(
        title="Test accuracy after the last epoch",
        columns=("recipe", "runs", "mean", "std", "95 % interval", "worst", "best", "target", "mean at the target"),
        rows=[
            *(_result(recipe) for recipe in figures.recipes),
            *((peer.name, str(peer.n), *_spread(peer), NONE, "not judged") for peer in figures.peers),
        ],
    )


def differences(figures: Figures) -> Table:
    """What every recipe gained or lost against the first, in points."""
    rows = []
    for each in figures.differences:
        found = each.accuracy
        between = NONE if found.interval is None else f"{found.interval.low:+.2f} to {found.interval.high:+.2f}"
        rows.append((each.name, f"{found.points:+.2f}", between, _p(found.p), found.verdict))
    return Table(
        title=f"Points of accuracy against {figures.recipes[0].name}, of which {figures.margin:g} may be lost",
        columns=("recipe", "difference", "95 % interval", "p", "verdict"),
        rows=rows,
    )


def seconds(figures: Figures) -> Table:
    """Epochs and the ways to every accuracy, machine by machine."""
    entrants: Sequence[Entrant] = [*figures.recipes, *figures.peers]
    machines = [(entrant.name, machine) for entrant in entrants for machine in entrant.machines]
    levels = sorted({level.accuracy for _, machine in machines for level in machine.levels})
    rows = []
    for name, machine in machines:
        known = {level.accuracy: _level(level) for level in machine.levels}
        reached = (known.get(level, "") for level in levels)
        clock = _seconds(machine.clock_seconds)
        if machine.n > 1:
            clock += f" ({_seconds(machine.clock_min).removesuffix(' s')} to {_seconds(machine.clock_max)})"
        rows.append((name, str(machine.n), clock, _seconds(machine.epoch_seconds), *reached, machine.machine))
    return Table(
        title="Median seconds: of all training and the last evaluation, and of training an epoch and to an accuracy",
        columns=("recipe", "runs", "whole run", "epoch", *(f"{level:.4g} %" for level in levels), "machine"),
        rows=rows,
    )


def _result(recipe: RecipeFigures) -> tuple[str, ...]:
    target, verdict = f"{100 * recipe.recipe.target_accuracy:.2f} %", "not judged"
    if recipe.target is not None:
        verdict = recipe.target.verdict + ("" if recipe.target.p is None else f", p {_p(recipe.target.p)}")
    return recipe.name, _runs(recipe), *_spread(recipe), target, verdict


def _spread(entrant: Entrant) -> tuple[str, ...]:
    """Mean, standard deviation, interval, worst and best."""
    interval = entrant.interval
    between = NONE if interval is None else f"{interval.low:.2f} to {interval.high:.2f} %"
    std = NONE if entrant.std is None else f"{entrant.std:.2f}"
    percents = [NONE if value is None else f"{value:.2f} %" for value in (entrant.mean, entrant.worst, entrant.best)]
    mean, worst, best = percents
    return mean, std, between, worst, best


def _runs(recipe: RecipeFigures) -> str:
    others = {"diverged": recipe.diverged, "unfinished": recipe.unfinished}
    return ", ".join([str(recipe.n), *(f"{len(seeds)} {state}" for state, seeds in others.items() if seeds)])


def _level(level: Level) -> str:
    if level.reached == 0:
        return "never"
    reached = "" if level.reached == level.n else f" ({level.reached} of {level.n})"
    share = "half" if 2 * level.reached == level.n else "most"
    return (f"{share} never" if level.seconds is None else _seconds(level.seconds)) + reached


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def _p(p: float | None) -> str:
    return NONE if p is None else f"{p:.2g}"
