"""`python -m bench.report`: what benchmarks and runs say, for somebody who has to decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cifarfast.door import parse, run
from cifarfast.errors import UserError

PROG = "python -m bench.report"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make a report of benchmarks: what the bottleneck is, who is how fast, what accuracy an epoch buys.

    report.html opens without a network; report.md and report.json have the same findings, `plots` the drawings.
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BENCH.json... RUN...")]
    """Files that pytest bench --benchmark-json wrote, at least one, and run folders, whose accuracy is told."""
    out: Path = Path("bench-report")
    """The folder to write into."""


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The command line."""
    return parse(Arguments, prog=PROG, argv=argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, print."""
    arguments = parse_arguments(argv)
    runs = [path for path in arguments.sources if path.is_dir()]
    benches = [path for path in arguments.sources if not path.is_dir()]
    if not benches:
        raise UserError(f"which benchmarks? name a file of pytest bench --benchmark-json (see {PROG} --help)")
    from bench.reporting.page import write_report  # imports torch, which --help does without

    for path in write_report(benches, runs, arguments.out):
        print(f"saved {path}")


if __name__ == "__main__":
    run(main)
