"""`python -m cifarfast.evaluate`: what the network of a run gets right on the test split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cifarfast.door import note, parse, run
from cifarfast.recipe import Tta

if TYPE_CHECKING:
    from cifarfast.scoring import RunScore

PROG = "python -m cifarfast.evaluate"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Accuracy and loss of a run on its test images, and those of every class."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as python -m cifarfast.train printed it."""
    tta: Tta | None = None
    """Test-time augmentation: average over the mirror image, and over shifts by one pixel; by default the recipe's."""
    data: Path | None = None
    """Where the data of the run is now; by default where it was."""
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    """Where to evaluate, in the precision of the run; by default where the run asked for."""
    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    from cifarfast.scoring import evaluate_run  # imports torch, which --help does without

    found = evaluate_run(arguments.run, tta=arguments.tta, data=arguments.data, device=arguments.device)
    if arguments.json:
        import json

        print(json.dumps(asdict(found), indent=2, allow_nan=False))
    else:
        _print_table(found)
    if found.recorded_right not in (None, found.right):
        note(f"training counted {found.recorded_right:,} right, not {found.right:,}: another machine or release rounds")


def _print_table(found: "RunScore") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("class")
    for heading in ("images", "right", "accuracy", "loss"):
        table.add_column(heading, justify="right")
    for each in found.classes:
        accuracy = f"{each.right / each.images:.2%}" if each.images else "-"
        loss = "-" if each.loss is None else f"{each.loss:.4f}"
        table.add_row(Text(each.name), f"{each.images:,}", f"{each.right:,}", accuracy, loss)
    table.add_section()
    table.add_row("all", f"{found.images:,}", f"{found.right:,}", f"{found.accuracy:.2%}", f"{found.loss:.4f}")
    Console().print(table)
    print(f"data: {found.data}, {found.images:,} test images, in {found.precision} on {found.device}")
    print(f"test accuracy {found.accuracy:.2%}, test-time augmentation: {found.tta}")


if __name__ == "__main__":
    run(main)
