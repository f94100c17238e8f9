"""How much the machine can do, measured beside everything else, and what share of it is reached.

The roofline is S. Williams, A. Waterman and D. Patterson's (CACM 52(4), 2009): what can be reached is the lower one
of the peak of arithmetic and of the bandwidth times the intensity, FLOP for a byte.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.records import BenchFile, Measured
from bench.reporting.estimate import Estimate, compared
from bench.reporting.facts import number, word
from bench.reporting.throughput import PEAKS, batch_size_of, fastest, last_measured, named
from bench.reporting.traffic import BYTES_OF, convolution_bytes, step_bytes

COPY = "copy"
PRODUCT = "product-"
CONVOLUTIONS = "convolutions-"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What part of a peak something reaches."""

    group: str
    """Which work."""
    name: str
    """Which variant of it."""
    per_second: float
    """FLOP or bytes a second, the median."""
    unit: str
    """FLOP or bytes."""
    peak: str
    """The peak that it is held against."""
    share: Estimate
    """Of 1, with its 95 % interval."""

    @property
    def work(self) -> str:
        """Which variant of which work."""
        return _label(self.group, self.name)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A piece of work in the roofline."""

    group: str
    """Which work."""
    name: str
    """Which variant of it."""
    intensity: float
    """FLOP for a byte that it must move at the least."""
    flops_per_second: float
    """What it reaches, the median."""
    reachable: float
    """What the roof above it allows, FLOP a second."""

    @property
    def work(self) -> str:
        """Which variant of which work."""
        return _label(self.group, self.name)


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What arithmetic and memory allow, and where the work stands below it."""

    bytes_per_second: float
    """The slope: the copy."""
    flops_per_second: dict[str, float]
    """The roofs: the matrix product in each precision."""
    points: list[Point]
    """The work."""


def find_shares(files: Sequence[BenchFile]) -> list[Share]:
    """Convolutions and steps as shares of the matrix product in their precision, augmentations as shares of the copy.

    Two contests, one after the other: the rounds are not pairs.
    """
    peaks = last_measured(files, PEAKS)
    shares = []
    for one in [*_convolutions(peaks), *last_measured(files, "step")]:
        precision, flops = _precision(one), _flops(one)
        if precision is not None and flops is not None:
            shares.append(_share(one, flops, _peak(peaks, PRODUCT + precision, "FLOP")))
    copy, augmentations = _peak(peaks, COPY, "bytes"), last_measured(files, "augment")
    moved = ((one, number(one.extra.facts, "bytes")) for one in augmentations)
    shares += [_share(one, amount, copy) for one, amount in moved if amount is not None]
    return [share for share in shares if share is not None]


def find_roofline(files: Sequence[BenchFile]) -> Roofline | None:
    """Convolutions, the fastest step in each precision and our augmentation under their roofs; None without roofs."""
    peaks = last_measured(files, PEAKS)
    copy, products = _peak(peaks, COPY, "bytes"), {p: _peak(peaks, PRODUCT + p, "FLOP") for p in BYTES_OF}
    roofs = {precision: product.rate.median for precision, product in products.items() if product is not None}
    if copy is None or not roofs:
        return None
    bandwidth, points = copy.rate.median, []
    for one, precision, flops, moved in _work(files, peaks):
        if precision in roofs:
            intensity = flops / moved
            points.append(
                Point(
                    group=one.group,
                    name=one.name,
                    intensity=intensity,
                    flops_per_second=flops * one.rate.median / one.extra.work,
                    reachable=min(roofs[precision], bandwidth * intensity),
                )
            )
    return Roofline(bytes_per_second=bandwidth, flops_per_second=roofs, points=points)


def _work(files: Sequence[BenchFile], peaks: Sequence[Measured]) -> Iterator[tuple[Measured, str, float, float]]:
    """What the roofline shows: the rounds, precision, FLOP and compulsory bytes of one call."""
    for one in _convolutions(peaks):
        precision, batch_size, flops = _precision(one), batch_size_of(one), _flops(one)
        if precision is not None and batch_size is not None and flops is not None:
            yield one, precision, flops, convolution_bytes(batch_size, precision)
    steps = last_measured(files, "step")
    for precision in BYTES_OF:
        best = fastest(one for one in steps if _precision(one) == precision)
        batch_size, flops = (batch_size_of(best), _flops(best)) if best else (None, None)
        if best is not None and batch_size is not None and flops is not None:
            yield best, precision, flops, step_bytes(batch_size, precision)
    for one in last_measured(files, "augment"):
        flops, moved = _flops(one), number(one.extra.facts, "bytes")
        if one.name.startswith("ours") and flops is not None and moved is not None:
            yield one, "fp32", flops, moved


def _share(one: Measured, amount: float, peak: Measured | None) -> Share | None:
    """What `one`, that does so much a call, reaches of a peak."""
    if peak is None:
        return None
    seconds = [value / amount for value in one.seconds]
    return Share(
        group=one.group,
        name=one.name,
        per_second=amount * one.rate.median / one.extra.work,
        unit=str(peak.extra.unit),
        peak=peak.name,
        share=compared(seconds, peak.unit_seconds, paired=False),
    )


def _label(group: str, name: str) -> str:
    return name if group == PEAKS else f"{group} {name}"


def _peak(peaks: Sequence[Measured], name: str, unit: str) -> Measured | None:
    return named((one for one in peaks if one.extra.unit == unit), name)


def _convolutions(peaks: Sequence[Measured]) -> list[Measured]:
    return [one for one in peaks if one.name.startswith(CONVOLUTIONS)]


def _precision(one: Measured) -> str | None:
    found = one.name.removeprefix(CONVOLUTIONS) if one.group == PEAKS else word(one.extra.facts, "precision")
    return found if found in BYTES_OF else None


def _flops(one: Measured) -> float | None:
    return one.extra.work if one.extra.unit == "FLOP" else number(one.extra.facts, "flops")
