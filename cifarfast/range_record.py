"""lr_range.json: what a range test of a recipe was, on what it ran, and what it suggests."""

from dataclasses import dataclass
from pathlib import Path

from cifarfast.errors import UserError
from cifarfast.files import read_plain, write_json
from cifarfast.fingerprint import Fingerprint
from cifarfast.range_test import LrRange
from cifarfast.recipe import Recipe
from cifarfast.records import decode_versioned, sealed
from cifarfast.summary import Data, RuntimeRecord

SCHEMA = 1
RANGE_NAME = "lr_range.json"
PLOT_NAME = "lr_range.png"
_MAX_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class LrRangeRecord:
    """The whole of lr_range.json."""

    schema: int = SCHEMA
    """Version of this layout."""
    result: LrRange
    """Settings, curve and suggestions."""
    recipe: Recipe
    """What was trained; its own learning rate and length play no part."""
    seed: int
    """The seed."""
    runtime: RuntimeRecord
    """How it was executed."""
    fingerprint: Fingerprint
    """Machine, versions, commit."""
    data: Data
    """What was trained on; where there are test images, the loss is that on them after each step."""
    started: str
    """UTC time, ISO 8601."""
    total_seconds: float
    """From checking the data to the end of the sweep, compilation included."""


def write_range(folder: Path, record: LrRangeRecord) -> None:
    """Write lr_range.png and, when that is there, lr_range.json."""
    from cifarfast.lr_plot import save_plot  # imports matplotlib

    save_plot(folder / PLOT_NAME, record.result, title=f"{record.recipe.name} on {record.data.kind}")
    write_json(folder / RANGE_NAME, sealed(record))


def read_range(folder: Path, *, hint: str) -> LrRangeRecord | None:
    """Read lr_range.json of a folder; None where there is none. `hint` says what to do about one that is damaged.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    path = folder / RANGE_NAME
    try:
        raw = read_plain(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {hint}") from None
    return decode_versioned(raw, LrRangeRecord, schema=SCHEMA, where=path, hint=hint)


def check_no_range(folder: Path) -> None:
    """Raise UserError where a folder holds a range test."""
    if (folder / RANGE_NAME).exists():
        raise UserError(f"{folder} already holds a range test: choose another --out, or move that one away")
