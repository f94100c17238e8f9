"""`python -m bench.race`: recipes and another program in turn, on one machine, and how their seconds compare."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cifarfast.checks import positive
from cifarfast.config import CHECKPOINT_MINUTES, RunConfig
from cifarfast.door import leave_if_asked, note, parse, print_columns, run
from cifarfast.errors import one_line
from cifarfast.recipe import SPEEDRUN_91
from cifarfast.runtime import Runtime
from cifarfast.studying.plan import Plan, recipes_of, seeds_of

if TYPE_CHECKING:
    from cifarfast.accuracy import Interval
    from cifarfast.studying.peers import PeerRun
    from cifarfast.studying.runs import StudyRun

PROG = "python -m bench.race"
RACE_NAME = "race.json"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Race recipes against airbench's train94, by one clock: seed by seed in turn, that what disturbs disturbs both.

    The clock runs from data in memory to the last training step, and through the final evaluation with test-time
    augmentation; not while compiling, nor through the step on which airbench warms up (eagerly ours has none). The
    folder is that of a cifarfast.study, whose page has airbench's runs in it too. After an interruption the same
    command goes on, airbench's run from its beginning.
    """

    recipe: str = SPEEDRUN_91.name
    """Recipes, as in cifarfast.study."""
    seeds: str = "0-4"
    """Seeds, as in cifarfast.study."""
    out: Path | None = None
    """The race's folder; by default studies/race-<first recipe>."""
    data: Path = Path("data/cifar10")
    """Converted folder, made by python -m data_prep.to_ffcv."""
    verify: bool = True
    """Hold the data against its SHA-256 digests first; --no-verify looks at sizes only."""
    memory: Literal["own", "ours", "both"] = "own"
    """Whose settings of a CPU's memory airbench has: its own, which are the C library's, or those that ours has; with
    `both` it runs twice for each seed."""
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    """Longest time between two checkpoints of our runs."""
    runtime: Runtime = field(default_factory=Runtime)
    """How our runs are executed; airbench runs eagerly, in a process of its own, on the same device and in the same
    precision (on CUDA fp16)."""

    def __post_init__(self) -> None:
        positive("checkpoint_minutes", self.checkpoint_minutes)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A recipe's runs and another program's with the same seeds, on one machine; in turn if the race made them all."""

    recipe: str
    """Name of the recipe's folder."""
    peer: str
    """The other program."""
    seeds: list[int]
    """Seeds that both ran with, on one machine."""
    clock_ratio: "Interval"
    """How many times as fast the recipe is: median of the other's seconds over the median of ours, with its 95 %
    interval (bootstrap of pairs; of two to four it is too narrow, see `speed_ratio`)."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """The whole of race.json."""

    schema: int = SCHEMA
    """Version of this layout."""
    pairings: list[Pairing]
    """Of every recipe with every other program."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, race, print."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    recipes = recipes_of(arguments.recipe)
    plan = Plan(
        out=arguments.out or Path("studies") / f"race-{next(iter(recipes))}",
        recipes=recipes,
        seeds=seeds_of(arguments.seeds),
        usual=RunConfig(data=arguments.data, verify=arguments.verify, runtime=arguments.runtime),
    )
    from cifarfast.accuracy import MARGIN  # imports numpy, and the rest torch and matplotlib: --help does without
    from cifarfast.files import write_json
    from cifarfast.records import sealed
    from cifarfast.reporting.study import write_study
    from cifarfast.studying import words

    _run(plan, memory=arguments.memory, checkpoint_minutes=arguments.checkpoint_minutes)
    figures, page = write_study(plan.out, first=list(recipes), margin=MARGIN)
    found = race_of(plan.out, list(recipes))
    write_json(plan.out / RACE_NAME, sealed(found))
    for table in (words.results(figures), words.seconds(figures)):
        print(f"\n{one_line(table.title)}")
        print_columns([table.columns, *table.rows])
    print()
    for pairing in found.pairings:
        print(one_line(_told(pairing)))
    print(f"see {page}")


def _run(plan: Plan, *, memory: str, checkpoint_minutes: float) -> None:
    from bench.peers import airbench94_alone, imported, peer_name
    from cifarfast.studying.course import run_study, study_lock
    from cifarfast.studying.peers import peer_file, write_peer

    imported()  # whether it is there is known before anything is trained
    for seed in plan.seeds:
        run_study(replace(plan, seeds=[seed]), checkpoint_minutes=checkpoint_minutes)
        for lent in {"own": [False], "ours": [True], "both": [False, True]}[memory]:
            if (path := peer_file(plan.out, peer_name(lend_memory=lent), seed)).exists():
                continue
            note(f"{path}: airbench's train94; interrupted, it begins anew by the same command")
            leave_if_asked()
            with study_lock(plan.out):
                write_peer(plan.out, airbench94_alone(plan.usual, seed=seed, lend_memory=lent))


def race_of(out: Path, recipes: Sequence[str]) -> Race:
    """How the runs in a race's folder compare.

    Raises:
        UserError: a run is damaged, or not comparable with the others.
    """
    from cifarfast.studying.peers import read_peers
    from cifarfast.studying.runs import read_runs

    runs = read_runs(out, first=recipes)
    peers = read_peers(out, data=next((run.run.summary.data for run in runs if run.run.summary), None))
    return Race(pairings=list(_pairings(runs, peers)))


def _pairings(runs: Sequence["StudyRun"], peers: Sequence["PeerRun"]) -> Iterator[Pairing]:
    from bench.statistics import speed_ratio
    from cifarfast.studying.figures import clock_seconds
    from cifarfast.studying.peers import beside

    for recipe in dict.fromkeys(ours.recipe for ours in runs):
        for name in dict.fromkeys(peer.name for peer in peers):
            pairs = [
                (ours, theirs)
                for ours in runs
                for theirs in peers
                if (ours.recipe, name, ours.seed) == (recipe, theirs.name, theirs.seed)
                if ours.run.summary is not None and beside(theirs, ours.run.summary)
            ]
            if pairs:
                seconds = [clock_seconds(ours.run) for ours, _ in pairs]
                baseline = [theirs.clock_seconds for _, theirs in pairs]
                ratio = speed_ratio(seconds, baseline, paired=True)
                yield Pairing(recipe=recipe, peer=name, seeds=[ours.seed for ours, _ in pairs], clock_ratio=ratio)


def _told(pairing: Pairing) -> str:
    from bench.statistics import ENOUGH

    ratio, n = pairing.clock_ratio, len(pairing.seeds)
    between = f" ({ratio.low:.2f} to {ratio.high:.2f})" if n > 1 else ""
    caveat = ", too few for this interval to be wide enough" if 1 < n < ENOUGH else ""
    return f"{pairing.recipe} is {ratio.value:.2f}{between} times as fast as {pairing.peer}, n={n}{caveat}"


if __name__ == "__main__":
    run(main)
