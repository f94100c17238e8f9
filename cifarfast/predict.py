"""`python -m cifarfast.predict`: what the network of a run sees in image files."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cifarfast.checks import between
from cifarfast.door import note, parse, run
from cifarfast.errors import EXIT_USER_ERROR, UserError, one_line

if TYPE_CHECKING:
    from cifarfast.guessing import Guess

PROG = "python -m cifarfast.predict"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Name what is in image files of any size: the network sees their central square, resized to 32x32.

    A file that cannot be read is named and the others are answered for; the exit code is then 2.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as python -m cifarfast.train printed it."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Image files."""
    top: int = 3
    """How many classes to name for each."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        between("top", self.top, 1, 10)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, predict, print; exit code 2 if a file could not be read."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    if not arguments.images:
        raise UserError(f"which images? name one or more files (see {PROG} --help)")
    from cifarfast.guessing import guess_files  # imports torch, which --help does without

    found, failed = guess_files(arguments.run, arguments.images, top=arguments.top)
    for error in failed:
        note(f"error: {error}")
    if arguments.json:
        answers = [{"file": str(path), "classes": [asdict(guess) for guess in guesses]} for path, guesses in found]
        print(json.dumps(answers, indent=2, allow_nan=False))
    elif found:
        _print_table(found)
    if failed:
        sys.exit(EXIT_USER_ERROR)


def _print_table(found: "Sequence[tuple[Path, list[Guess]]]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class")
    table.add_column("probability", justify="right")
    for path, guesses in found:
        for i, guess in enumerate(guesses):
            table.add_row(Text("" if i else one_line(str(path))), Text(guess.name), f"{guess.probability:.1%}")
    Console().print(table)


if __name__ == "__main__":
    run(main)
