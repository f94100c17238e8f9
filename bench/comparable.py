"""What is not comparable is refused."""

from collections.abc import Sequence
from pathlib import Path

from cifarfast.errors import UserError


def refuse_unless_forced(before: Path, after: Path, differences: Sequence[str], *, force: bool) -> None:
    """Raise UserError, naming the differences, if there are any."""
    if differences and not force:
        raise UserError(
            f"{before} and {after} are not comparable, they differ in {', '.join(differences)}: "
            "measure both alike, or compare them all the same with --force"
        )
