"""Two benchmark files: what became faster, what slower."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.comparable import refuse_unless_forced
from bench.records import BenchFile, Measured, read_bench
from bench.statistics import Quartiles, quartiles
from bench.verdicts import LEVEL, MINIMUM_EFFECT, SpeedVerdict, judge_speed
from cifarfast.comparable import differing, machine_facts
from cifarfast.errors import UserError

_SAME_WORK = 0.01
"""Relative difference in the amount of work up to which it is the same work: a checkpoint may gain a few bytes."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where figures are from."""

    path: Path
    """The file."""
    date: str
    """When it was measured: UTC time, ISO 8601."""
    git_commit: str | None
    """Commit of the code, None outside a checkout."""
    git_dirty: bool | None
    """Whether tracked files differed from it."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark of both files."""

    group: str
    """Its group."""
    name: str
    """The variant."""
    before: Quartiles
    """Seconds of one call."""
    after: Quartiles
    """Likewise."""
    noisy: bool
    """Whether the spread of either is so wide that a reader must be told."""
    speed: SpeedVerdict
    """What is said of the difference."""


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A benchmark of one file only."""

    group: str
    """Its group."""
    name: str
    """The variant."""
    only: Literal["before", "after"]
    """Which file has it."""
    reason: str | None
    """Why the other one skipped it, where it says so."""


@dataclass(frozen=True, kw_only=True)
class FileComparison:
    """Two files, benchmark by benchmark."""

    before: Origin
    """The earlier file."""
    after: Origin
    """The later one."""
    forced: list[str]
    """What differs although it must not."""
    level: float
    """Level of the verdicts, all together."""
    minimum_effect: float
    """Share of the time beyond which a difference counts."""
    benchmarks: list[Benchmark]
    """In the order of the earlier file."""
    unmatched: list[Unmatched]
    """In the order of the files."""

    @property
    def regressed(self) -> bool:
        """Whether anything became slower."""
        return any(benchmark.speed.verdict == "slower" for benchmark in self.benchmarks)


def compare_files(
    before: Path, after: Path, *, minimum_effect: float = MINIMUM_EFFECT, force: bool = False
) -> FileComparison:
    """Compare two files.

    Args:
        minimum_effect: see `judge_speed`.
        force: compare what is not comparable, and say so in the result.

    Raises:
        UserError: a file is damaged, or they are not comparable, or have no benchmark in common.
    """
    earlier, later = read_bench(before), read_bench(after)
    matched = [(ours, theirs) for ours in earlier.measured if (theirs := later.find(ours.group, ours.name))]
    if not matched:
        raise UserError(f"{before} and {after} have no benchmark in common: measure the same groups in both")
    differences = differing([_facts(earlier), _facts(later)]) + _other_work(matched)
    refuse_unless_forced(before, after, differences, force=force)
    pairs = [(ours.unit_seconds, theirs.unit_seconds) for ours, theirs in matched]
    return FileComparison(
        before=_origin(earlier),
        after=_origin(later),
        forced=differences,
        level=LEVEL,
        minimum_effect=minimum_effect,
        benchmarks=[
            _benchmark(ours, theirs, speed)
            for (ours, theirs), speed in zip(matched, judge_speed(pairs, minimum_effect=minimum_effect), strict=True)
        ],
        unmatched=[*_unmatched(earlier, later, "before"), *_unmatched(later, earlier, "after")],
    )


def _facts(file: BenchFile) -> dict[str, Any]:
    header = file.header
    return {
        **machine_facts(file.machine),
        "data": header.data,
        "profile": header.profile,
        "batch size": header.batch_size,
    }


def _other_work(matched: Sequence[tuple[Measured, Measured]]) -> list[str]:
    found = []
    for ours, theirs in matched:
        one, other = ours.extra, theirs.extra
        if one.unit != other.unit or not math.isclose(one.work, other.work, rel_tol=_SAME_WORK):
            found.append(f"work of {ours.group} {ours.name} ({_work(ours)}, {_work(theirs)})")
    return found


def _work(measured: Measured) -> str:
    return f"{measured.extra.work:g} {measured.extra.unit or 'times'}"


def _origin(file: BenchFile) -> Origin:
    machine = file.machine
    return Origin(path=file.path, date=file.date, git_commit=machine.git_commit, git_dirty=machine.git_dirty)


def _benchmark(ours: Measured, theirs: Measured, speed: SpeedVerdict) -> Benchmark:
    before, after = quartiles(ours.seconds), quartiles(theirs.seconds)
    noisy = before.noisy or after.noisy
    return Benchmark(group=ours.group, name=ours.name, before=before, after=after, noisy=noisy, speed=speed)


def _unmatched(file: BenchFile, other: BenchFile, only: Literal["before", "after"]) -> Iterator[Unmatched]:
    reasons = {(skipped.group, skipped.name): skipped.reason for skipped in other.header.skipped}
    for measured in file.measured:
        if other.find(measured.group, measured.name) is None:
            reason = reasons.get((measured.group, measured.name))
            yield Unmatched(group=measured.group, name=measured.name, only=only, reason=reason)
