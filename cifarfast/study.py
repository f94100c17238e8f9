"""`python -m cifarfast.study`: recipes over seeds, and what their accuracies and seconds say together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cifarfast.checks import below, positive
from cifarfast.config import CHECKPOINT_MINUTES, RunConfig
from cifarfast.door import parse, print_columns, run
from cifarfast.errors import one_line
from cifarfast.recipe import DEFAULT_RECIPE
from cifarfast.runtime import Runtime
from cifarfast.studying.plan import Plan, recipes_of, seeds_of

if TYPE_CHECKING:
    from cifarfast.studying.figures import Figures
    from cifarfast.studying.runs import StudyRun

PROG = "python -m cifarfast.study"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train recipes with several seeds each, compiling once, and say what they reach and how they differ.

    Every run is the one that cifarfast.train makes with this recipe and seed, in a folder <out>/<recipe>/seed-<n>.
    After an interruption the same command goes on; more seeds and recipes can be added. Where every run is there, they
    are only read.
    """

    recipe: str = DEFAULT_RECIPE
    """Recipes with commas between, each NAME or NAME:FLAG=VALUE:..., flags as of cifarfast.train; the first is the
    baseline."""
    seeds: str = "0-4"
    """Seeds, such as 0-9, 0,3,7 or 0-2,8."""
    out: Path | None = None
    """The study's folder; by default studies/<first recipe>."""
    data: Path = Path("data/cifar10")
    """Converted folder, made by python -m data_prep.to_ffcv."""
    train_images: int | None = None
    """Train on so many images only, evenly spaced through the split."""
    test_images: int | None = None
    """Evaluate on so many images only, likewise."""
    verify: bool = True
    """Hold the data against its SHA-256 digests first; --no-verify looks at sizes only."""
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    """Longest time between two checkpoints; there is one at the end of every epoch too."""
    margin: float = 0.25
    """Points of test accuracy that a recipe may lose against the first and still be called not inferior."""
    runtime: Runtime = field(default_factory=Runtime)
    """How it is executed."""

    def __post_init__(self) -> None:
        positive("checkpoint_minutes", self.checkpoint_minutes)
        below("margin", self.margin, 100.0)


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The command line."""
    return parse(Arguments, prog=PROG, argv=argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train what is missing, print."""
    arguments = parse_arguments(argv)
    plan = _plan(arguments)
    from cifarfast.reporting.study import write_study  # imports torch and matplotlib, which --help does without
    from cifarfast.studying.course import run_study

    run_study(plan, checkpoint_minutes=arguments.checkpoint_minutes, on_run=_print_run)
    figures, page = write_study(plan.out, first=list(plan.recipes), margin=arguments.margin)
    _print_figures(figures)
    print(f"see {page}")


def _plan(arguments: Arguments) -> Plan:
    recipes = recipes_of(arguments.recipe)
    return Plan(
        out=arguments.out or Path("studies") / next(iter(recipes)),
        recipes=recipes,
        seeds=seeds_of(arguments.seeds),
        usual=RunConfig(
            data=arguments.data,
            train_images=arguments.train_images,
            test_images=arguments.test_images,
            verify=arguments.verify,
            runtime=arguments.runtime,
        ),
    )


def _print_run(done: "StudyRun") -> None:
    summary, what = done.run.summary, f"{done.recipe}, seed {done.seed}"
    if summary is None:
        print(f"{what}: diverged", flush=True)
        return
    seconds = sum(row.epoch_seconds for row in done.run.rows)
    print(f"{what}: test accuracy {summary.test_accuracy:.2%} after {seconds:,.1f} s of training", flush=True)


def _print_figures(figures: "Figures") -> None:
    from cifarfast.studying import words

    if caveat := words.caveat_of(figures.data):
        print(f"\n{caveat.kind.upper()}: {caveat.reason}")
    for table in (words.results(figures), words.differences(figures), words.seconds(figures)):
        if table.rows:
            print(f"\n{one_line(table.title)}")
            print_columns([table.columns, *table.rows])


if __name__ == "__main__":
    run(main)
