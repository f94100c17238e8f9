"""Who was how fast: every contest with its variants, each held against the baseline of the contest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records import BenchFile, Measured
from bench.reporting.estimate import Estimate, compared
from bench.reporting.facts import number
from bench.statistics import Quartiles, quartiles
from cifarfast.errors import UserError

PEAKS = "peaks"
GROUPS = (
    "loaders",
    "loaders-augmented",
    "augment",
    "step",
    "forward-backward",
    "forward",
    "dropout",
    "pooling",
    "epoch",
    "evaluate",
    "convert",
    "checkpoint",
    "start-up",
    PEAKS,
)
"""The contests that there are, in the order of a report."""


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A variant that was not measured."""

    name: str
    """The variant."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant that was measured."""

    name: str
    """The variant."""
    unit: str | None
    """images, FLOP or bytes; None where only the time matters."""
    seconds: Quartiles
    """Of one call."""
    rate: Quartiles | None
    """Units a second; None where only the time matters."""
    noisy: bool
    """Whether the middle half of the rounds is wide."""
    batch_size: int | None
    """Images of one call, where it says so."""
    ratio: Estimate | None
    """How many times as fast as the baseline, with its 95 % interval; None for the baseline and where there is none."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The variants of one piece of work, timed in turn."""

    group: str
    """Which work."""
    source: int
    """From which of the files, counted from 0."""
    baseline: str | None
    """What the others are held against."""
    rows: list[Row]
    """In the order in which they ran."""
    absent: list[Absence]
    """What was skipped, and why."""


def find_contests(files: Sequence[BenchFile]) -> list[Contest]:
    """All contests, in the order of `GROUPS`, then of the files; groups that are not known come last.

    Raises:
        UserError: variants of one contest, peaks aside, have different units.
    """
    contests = [_contest(file, source, group) for source, file in enumerate(files) for group in _groups(file)]
    known = {group: place for place, group in enumerate(GROUPS)}
    return sorted(contests, key=lambda contest: (known.get(contest.group, len(known)), contest.source))


def last_measured(files: Sequence[BenchFile], group: str) -> list[Measured]:
    """The variants of a group, of the last file that has any."""
    found = ([one for one in file.measured if one.group == group] for file in reversed(files))
    return next(filter(None, found), [])


def named(measured: Iterable[Measured], name: str) -> Measured | None:
    """The variant of that name."""
    return next((one for one in measured if one.name == name), None)


def fastest(measured: Iterable[Measured]) -> Measured | None:
    """The variant with the highest median rate."""
    return max(measured, key=lambda one: one.rate.median, default=None)


def batch_size_of(one: Measured) -> int | None:
    """Images of one call; None where it does not say so."""
    found = number(one.extra.facts, "batch_size")
    return round(found) if found is not None and found >= 1 else None


def _groups(file: BenchFile) -> list[str]:
    return list(
        dict.fromkeys([one.group for one in file.measured] + [skipped.group for skipped in file.header.skipped])
    )


def _contest(file: BenchFile, source: int, group: str) -> Contest:
    measured = [one for one in file.measured if one.group == group]
    units = {str(one.extra.unit) for one in measured}
    if group != PEAKS and len(units) > 1:
        raise UserError(f"{file.path} measures {group} in {' and in '.join(sorted(units))}: make it again")
    baseline = file.find(group, measured[0].extra.baseline) if measured else None
    return Contest(
        group=group,
        source=source,
        baseline=baseline.name if baseline else None,
        rows=[_row(one, baseline) for one in measured],
        absent=[Absence(name=s.name, reason=s.reason) for s in file.header.skipped if s.group == group],
    )


def _row(one: Measured, baseline: Measured | None) -> Row:
    rate, seconds = one.rate if one.extra.unit is not None else None, quartiles(one.seconds)
    held = baseline is not None and baseline is not one
    return Row(
        name=one.name,
        unit=one.extra.unit,
        seconds=seconds,
        rate=rate,
        batch_size=batch_size_of(one),
        noisy=(rate or seconds).noisy,
        ratio=compared(one.unit_seconds, baseline.unit_seconds, paired=True) if baseline and held else None,
    )
