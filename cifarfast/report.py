"""`python -m cifarfast.report`: a page that shows a run, or several runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cifarfast.door import note, parse, run
from cifarfast.errors import UserError

PROG = "python -m cifarfast.report"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make a report of a run, or of several runs one that compares them: one file that opens without a network.

    Plots go into a folder `plots` beside it.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run folders, as python -m cifarfast.train printed them."""
    out: Path | None = None
    """The page to write; by default report.html in the run's folder, for several runs comparison/report.html here."""
    data: Path | None = None
    """Where the data of a run is now, for its pictures; by default where it was. For one run only."""
    lr_range: Path | None = None
    """Folder of a range test to show, made by python -m cifarfast.find_lr; by default the run's. For one run only."""


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The command line."""
    return parse(Arguments, prog=PROG, argv=argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, print."""
    arguments = parse_arguments(argv)
    print(f"saved {_write(arguments)}")


def _write(arguments: Arguments) -> Path:
    if not arguments.runs:
        raise UserError(f"which run? name one or more run folders (see {PROG} --help)")
    if len(arguments.runs) == 1:
        from cifarfast.reporting.page import write_report  # imports torch, which --help does without

        (folder,) = arguments.runs
        return write_report(
            folder, out=arguments.out, data=arguments.data, lr_range=arguments.lr_range, computing=_say_computing
        )
    for flag, value in (("--data", arguments.data), ("--lr-range", arguments.lr_range)):
        if value is not None:
            raise UserError(f"{flag} {value} is for one run, not for {len(arguments.runs)}: leave it out")
    from cifarfast.reporting.comparison import write_comparison

    return write_comparison(arguments.runs, arguments.out or Path("comparison") / "report.html")


def _say_computing(images: int) -> None:
    note(f"asking the network about {images:,} test images, once: the run did not keep what it said")


if __name__ == "__main__":
    run(main)
