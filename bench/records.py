"""What `pytest bench --benchmark-json` leaves: pytest-benchmark's file, with the fields of `Extra` and `Header`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.statistics import Quartiles, quartiles
from cifarfast.errors import UserError
from cifarfast.files import read_plain
from cifarfast.fingerprint import Fingerprint

SCHEMA = 1
HEADER = "cifarfast"
"""The key of the header in the file."""
_MAX_BYTES = 64 << 20
_MAX_BENCHMARKS = 1_000
_MAX_ROUNDS = 10_000
"""Statistics of more would take minutes."""
_HINT = "make it again with pytest bench --benchmark-only --benchmark-json FILE"


@dataclass(frozen=True, kw_only=True)
class Machine(Fingerprint):
    """On what the file was measured."""

    torch_threads: int
    """torch's threads on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A variant that was not measured."""

    group: str
    """Its group."""
    name: str
    """Its name."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What all benchmarks of a file share."""

    schema: int = SCHEMA
    """Version of this layout."""
    profile: str
    """`quick` or `full`."""
    data: str
    """What was read: `cifar10`, `custom` or `synthetic`."""
    batch_size: int
    """Images of one training step."""
    skipped: list[Skipped]
    """What was not measured, and why."""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What pytest-benchmark does not know of a benchmark: its `extra_info`."""

    name: str
    """The variant, unique in its group."""
    baseline: str | None
    """The variant of the same contest that it is compared with; None where there is none in the file."""
    unit: str | None
    """images, FLOP or bytes; None where only the time matters."""
    work: float
    """How much of the unit one call does."""
    calls_per_round: int
    """Calls that one round is the mean of."""
    first_seconds: float | None
    """The very first call, compilation included; None without a warm-up."""
    facts: dict[str, Any]
    """What else is known of the variant."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A variant that was measured."""

    group: str
    """Its group."""
    extra: Extra
    """What it is."""
    seconds: list[float]
    """Of one call, one figure a round, all rounds in order: round i of all variants of a contest is one round."""

    @property
    def name(self) -> str:
        """The variant."""
        return self.extra.name

    @property
    def rate(self) -> Quartiles:
        """Units a second (calls a second where there is no unit)."""
        return quartiles([self.extra.work / seconds for seconds in self.seconds])

    @property
    def unit_seconds(self) -> list[float]:
        """Seconds for one unit of work, one figure a round: what ratios are made of."""
        return [seconds / self.extra.work for seconds in self.seconds]


@dataclass(frozen=True, kw_only=True)
class BenchFile:
    """One file."""

    path: Path
    """Where it is."""
    date: str
    """UTC time, ISO 8601."""
    machine: Machine
    """On what it was measured."""
    header: Header
    """What its benchmarks share."""
    measured: list[Measured]
    """In the order of the run."""

    def find(self, group: str, name: str | None) -> Measured | None:
        """The variant of that name, None where it was not measured."""
        return next((m for m in self.measured if (m.group, m.name) == (group, name)), None)

    def baseline_of(self, measured: Measured) -> Measured | None:
        """What a variant is compared with; None for the baseline itself, too."""
        return None if measured.extra.baseline == measured.name else self.find(measured.group, measured.extra.baseline)


class _Stats(msgspec.Struct):
    data: list[float]


class _Benchmark(msgspec.Struct):
    group: str
    extra_info: Extra
    stats: _Stats


class _File(msgspec.Struct):
    datetime: str
    machine_info: Machine
    benchmarks: list[_Benchmark]
    cifarfast: Header


class _AnyHeader(msgspec.Struct):
    schema: int


class _AnyFile(msgspec.Struct):
    cifarfast: _AnyHeader


def read_bench(path: Path) -> BenchFile:
    """Read and check a file.

    Raises:
        UserError: it cannot be read, or is not such a file, or a figure in it is impossible.
    """
    try:
        content = read_plain(path, _MAX_BYTES)
        schema = msgspec.json.decode(content, type=_AnyFile).cifarfast.schema
        if schema > SCHEMA:
            raise UserError(f"{path} has schema {schema}, newer than {SCHEMA}: update cifarfast")
        raw = msgspec.json.decode(content, type=_File)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file of pytest bench") from None
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not a benchmark file of this version ({error}): {_HINT}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"{path} is not JSON: {_HINT}") from None
    if len(raw.benchmarks) > _MAX_BENCHMARKS:
        raise UserError(f"{path} has more than {_MAX_BENCHMARKS:,} benchmarks: measure fewer")
    for benchmark in raw.benchmarks:
        _check(path, benchmark)
    measured = [Measured(group=b.group, extra=b.extra_info, seconds=b.stats.data) for b in raw.benchmarks]
    names = [(m.group, m.name) for m in measured]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{path} has {' '.join(min(twice))} twice: {_HINT}")
    return BenchFile(path=path, date=raw.datetime, machine=raw.machine_info, header=raw.cifarfast, measured=measured)


def possible(figure: float) -> bool:
    """Whether there can be so many seconds, or so much work; ratios of such figures do not overflow."""
    return 1e-30 < figure < 1e30


def _check(path: Path, benchmark: _Benchmark) -> None:
    figures: Sequence[float] = [benchmark.extra_info.work, *benchmark.stats.data]
    where = f"{benchmark.group} {benchmark.extra_info.name}"
    if len(figures) < 2 or not all(map(possible, figures)):
        raise UserError(f"{path} has a duration or an amount of work in {where} that cannot be: {_HINT}")
    if len(benchmark.stats.data) > _MAX_ROUNDS:
        raise UserError(f"{path} has more than {_MAX_ROUNDS:,} rounds of {where}: measure fewer")
