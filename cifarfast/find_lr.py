"""`python -m cifarfast.find_lr`: the learning rate range test of a recipe."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from cifarfast.config import RunConfig, run_config
from cifarfast.door import named_recipe, parse, run
from cifarfast.range_test import LrRange, Sweep

PROG = "python -m cifarfast.find_lr"


@dataclass(frozen=True, kw_only=True)
class Arguments(RunConfig):
    """Raise the learning rate step by step, watch the loss and suggest a max_lr.

    With --test-images it is the loss on these that is watched, not that of the training batch.
    """

    out: Path | None = None
    """Folder to make for lr_range.json and lr_range.png; by default runs/<time>-<recipe>-lr-range."""
    sweep: Sweep = field(default_factory=Sweep)
    """Which learning rates are tried."""


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The command line; its defaults are those of the recipe that it names."""
    return parse(Arguments, prog=PROG, argv=argv, default=Arguments(recipe=named_recipe(argv)))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, sweep, print."""
    arguments = parse_arguments(argv)
    from cifarfast.lr_range import recipe_range_test  # imports torch, which --help does without

    out = arguments.out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{arguments.recipe.name}-lr-range"
    record = recipe_range_test(run_config(arguments), arguments.sweep, out=out)
    print(f"data: {record.data.kind}, {record.data.train_images:,} training images")
    _print_result(record.result)
    print(f"saved {out}")


def _print_result(result: LrRange) -> None:
    last = result.points[-1].lr
    print(
        {
            "end": f"swept all {len(result.points)} learning rates, up to {last:.3g}",
            "diverged": f"stopped at learning rate {last:.3g}, step {len(result.points)}: the loss diverged",
            "non-finite": f"stopped at learning rate {last:.3g}, step {len(result.points)}: the loss is not finite",
        }[result.stopped]
    )
    for name, suggestion in asdict(result.suggestions).items():
        print(f"{name:13} {suggestion['reason'] or format(suggestion['lr'], '.3g')}")


if __name__ == "__main__":
    run(main)
