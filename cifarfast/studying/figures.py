"""study.json: what the runs of a study say together. Accuracies are in percent and pooled over all machines."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from cifarfast.accuracy import (
    AccuracyVerdict,
    Interval,
    TargetVerdict,
    judge_accuracy,
    judge_target,
    mean_interval,
)
from cifarfast.comparable import flat, machine_facts
from cifarfast.files import write_json
from cifarfast.fingerprint import Fingerprint
from cifarfast.recipe import Recipe
from cifarfast.records import sealed
from cifarfast.runfolder import Run
from cifarfast.studying.peers import PeerRun
from cifarfast.studying.runs import State, StudyRun
from cifarfast.summary import ACCURACY_LEVELS, Data, Effective, Epoch, Seconds, Summary, reached, spread, where

SCHEMA = 1
STUDY_NAME = "study.json"
MachineKey: TypeAlias = tuple[tuple[str, object], ...]


@dataclass(frozen=True, kw_only=True)
class Level:
    """When an accuracy was reached."""

    accuracy: float
    """Test accuracy, in percent."""
    reached: int
    """Runs that reached it."""
    n: int
    """Runs."""
    seconds: float | None
    """Median of the training seconds until then, where a run that never came there counts as later than all others;
    null if that is the median."""


@dataclass(frozen=True, kw_only=True)
class MachineFigures:
    """The seconds of a recipe's runs on one machine, executed one way."""

    machine: str
    """The processor and how it was used."""
    n: int
    """Runs."""
    epoch_seconds: float
    """Median of the runs' medians (of their first epoch where there is no other); training alone."""
    clock_seconds: float
    """Median of what a run took from data in memory to its result: all training, and the evaluation after the last
    epoch; not compilation, nor the evaluations in between."""
    clock_min: float
    """Shortest."""
    clock_max: float
    """Longest."""
    levels: list[Level]
    """80 %, 90 %, 94 %, and the target of every recipe of the study."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """The finished runs of a recipe, or of another program."""

    name: str
    """Name of its folder."""
    n: int
    """Finished runs: all that follows is of these."""
    seeds: list[int]
    """Their seeds."""
    mean: float | None
    """Mean test accuracy after the last epoch; null of no run."""
    std: float | None
    """Standard deviation of the runs, in points; null of less than two."""
    interval: Interval | None
    """The mean with its 95 % interval (Student's t); null likewise."""
    best: float | None
    """Highest test accuracy."""
    worst: float | None
    """Lowest."""
    machines: list[MachineFigures]
    """Seconds, machine by machine."""


@dataclass(frozen=True, kw_only=True)
class RecipeFigures(Entrant):
    """The runs of one recipe."""

    recipe: Recipe
    """What was learned."""
    diverged: list[int]
    """Seeds of the runs that diverged, and so have no accuracy."""
    unfinished: list[int]
    """Seeds of the runs that were begun and not ended yet."""
    target: TargetVerdict | None
    """The mean held against the recipe's target; null unless these are whole runs on the whole, real CIFAR-10."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A recipe held against the first."""

    name: str
    """The recipe."""
    baseline: str
    """The first one."""
    accuracy: AccuracyVerdict
    """By how many points it is better, and whether it lost no more than the margin."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The whole of study.json."""

    schema: int = SCHEMA
    """Version of this layout."""
    data: Data | None
    """What was trained and tested on; null while no run is finished."""
    margin: float
    """Points of accuracy that may be lost."""
    recipes: list[RecipeFigures]
    """In the order in which they were named."""
    differences: list[Difference]
    """Of every other recipe with finished runs, where the first has some."""
    peers: list[Entrant] = field(default_factory=list)
    """Other programs that ran beside them (`cifarfast.studying.peers`), each with its version in its name."""


def figures_of(runs: Sequence[StudyRun], *, margin: float, peers: Sequence[PeerRun] = ()) -> Figures:
    """What the runs of a study (`read_runs`) say together; the others are held against the first recipe.

    Args:
        margin: in points, see `judge_accuracy`.
        peers: runs of other programs (`read_peers`).
    """
    recipes = {name: [run for run in runs if run.recipe == name] for name in dict.fromkeys(run.recipe for run in runs)}
    accuracies = {name: _accuracies(_summaries(of_recipe)) for name, of_recipe in recipes.items()}
    baseline = next(iter(recipes), "")
    names = machines_of(runs, peers)
    levels = sorted({*ACCURACY_LEVELS, *(run.run.config.recipe.target_accuracy for run in runs)})
    return Figures(
        data=next((summary.data for summary in _summaries(runs)), None),
        margin=margin,
        recipes=[_recipe(name, of_recipe, names, levels) for name, of_recipe in recipes.items()],
        differences=[
            Difference(
                name=name, baseline=baseline, accuracy=judge_accuracy(accuracies[baseline], found, margin=margin)
            )
            for name, found in accuracies.items()
            if name != baseline and found and accuracies[baseline]
        ],
        peers=[
            _peer(name, [peer for peer in peers if peer.name == name], names, levels)
            for name in dict.fromkeys(peer.name for peer in peers)
        ],
    )


def write_figures(out: Path, figures: Figures) -> None:
    """Write study.json."""
    write_json(out / STUDY_NAME, sealed(figures))


def machine_key(fingerprint: Fingerprint, effective: Effective) -> MachineKey:
    """What is the same in runs whose seconds may be put together: machine, versions, and how it was used."""
    return tuple(flat({**machine_facts(fingerprint), **asdict(effective)}).items())


def machines_of(runs: Iterable[StudyRun], peers: Iterable[PeerRun] = ()) -> dict[MachineKey, str]:
    """The `machine_names` of all finished runs."""
    ours = [(summary.fingerprint, summary.runtime.effective) for summary in _summaries(runs)]
    return machine_names([*ours, *((peer.fingerprint, peer.effective) for peer in peers)])


def machine_names(executed: Iterable[tuple[Fingerprint, Effective]]) -> dict[MachineKey, str]:
    """What is called how, by its `machine_key`: as `where` says, with a number where two would be called alike.

    Machines of one kind are told apart by little, two boots of a virtual one by no more than a page of memory. Whatever
    ran on the same two has them in the same order.
    """
    keys = {machine_key(*one): where(*one) for one in executed}
    names: dict[MachineKey, str] = {}
    for key, name in keys.items():
        alike = [other for other, called in keys.items() if called == name]
        fields = [field for field, fact in key if len({dict(other).get(field) for other in alike}) > 1]
        facts = {other: tuple(dict(other).get(field) for field in fields) for other in keys}
        order = [each for each in dict.fromkeys(facts.values()) if each in {facts[other] for other in alike}]
        number = f", {order.index(facts[key]) + 1} of {len(order)} that differ in {', '.join(fields)}" if fields else ""
        names[key] = name + number
    return names


def _recipe(
    name: str, runs: Sequence[StudyRun], names: Mapping[MachineKey, str], levels: Sequence[float]
) -> RecipeFigures:
    summaries = _summaries(runs)
    values, recipe = _accuracies(summaries), runs[0].run.config.recipe
    judged = bool(summaries) and all(summary.target_met is not None for summary in summaries)
    return RecipeFigures(
        **_of_accuracies(values),
        name=name,
        seeds=_seeds(runs, "finished"),
        machines=_machines(
            [_timing(run.run, run.run.summary) for run in runs if run.run.summary is not None], names, levels
        ),
        recipe=recipe,
        diverged=_seeds(runs, "diverged"),
        unfinished=_seeds(runs, "unfinished"),
        target=judge_target(values, 100 * recipe.target_accuracy) if judged else None,
    )


def _peer(name: str, runs: Sequence[PeerRun], names: Mapping[MachineKey, str], levels: Sequence[float]) -> Entrant:
    return Entrant(
        **_of_accuracies([100 * run.test_accuracy for run in runs]),
        name=name,
        seeds=[run.seed for run in runs],
        machines=_machines([_peer_timing(run) for run in runs], names, levels),
    )


def _of_accuracies(values: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(values),
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "interval": mean_interval(values),
        "best": max(values, default=None),
        "worst": min(values, default=None),
    }


class _Timing(NamedTuple):
    """The seconds of a run."""

    fingerprint: Fingerprint
    effective: Effective
    clock: float
    epochs: Seconds
    rows: Sequence[Epoch]


def _timing(run: Run, summary: Summary) -> _Timing:
    return _Timing(summary.fingerprint, summary.runtime.effective, clock_seconds(run), summary.epoch_seconds, run.rows)


def _peer_timing(peer: PeerRun) -> _Timing:
    epochs = spread([row.epoch_seconds for row in peer.rows])
    return _Timing(peer.fingerprint, peer.effective, peer.clock_seconds, epochs, peer.rows)


def clock_seconds(run: Run) -> float:
    """What a run took from data in memory to its result: all training, and the evaluation after the last epoch."""
    return sum(row.epoch_seconds for row in run.rows) + run.rows[-1].eval_seconds


def _machines(
    timings: Iterable[_Timing], names: Mapping[MachineKey, str], levels: Sequence[float]
) -> list[MachineFigures]:
    machines: dict[MachineKey, list[_Timing]] = {}
    for timing in timings:
        machines.setdefault(machine_key(timing.fingerprint, timing.effective), []).append(timing)
    return [_machine(names[key], there, levels) for key, there in machines.items()]


def _machine(name: str, timings: Sequence[_Timing], levels: Sequence[float]) -> MachineFigures:
    clocks = [timing.clock for timing in timings]
    return MachineFigures(
        machine=name,
        n=len(timings),
        epoch_seconds=statistics.median(timing.epochs.median or timing.epochs.first for timing in timings),
        clock_seconds=statistics.median(clocks),
        clock_min=min(clocks),
        clock_max=max(clocks),
        levels=[_level(level, [reached(level, timing.rows).seconds for timing in timings]) for level in levels],
    )


def _level(accuracy: float, seconds: Sequence[float | None]) -> Level:
    median = statistics.median(math.inf if each is None else each for each in seconds)
    return Level(
        accuracy=100 * accuracy,
        reached=sum(each is not None for each in seconds),
        n=len(seconds),
        seconds=median if math.isfinite(median) else None,
    )


def _summaries(runs: Iterable[StudyRun]) -> list[Summary]:
    return [run.run.summary for run in runs if run.run.summary is not None]


def _accuracies(summaries: Iterable[Summary]) -> list[float]:
    return [100 * summary.test_accuracy for summary in summaries]


def _seeds(runs: Iterable[StudyRun], state: State) -> list[int]:
    return [run.seed for run in runs if run.state == state]
