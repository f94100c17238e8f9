"""Whether compiling pays: what it costs, what an epoch gains, after how many epochs it has paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.records import BenchFile, Measured
from bench.reporting.estimate import Estimate, compared
from bench.reporting.facts import number, word
from bench.reporting.throughput import last_measured, named
from bench.statistics import Quartiles, quartiles

EPOCH_IMAGES = 50_000
"""Training images of CIFAR-10."""

PRODUCTION = ("fp32", "channels-last")
"""Precision and layout of a step that training compiles by default."""

Verdict = Literal["pays", "no gain shown", "slower"]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The compiled step against the eager one, in one precision and layout."""

    precision: str
    """fp32, bf16 or fp16."""
    layout: str
    """contiguous or channels-last."""
    ratio: Estimate
    """How many times as fast as the eager step, with the 95 % interval."""
    epoch_seconds: float
    """An epoch of 50,000 images with the eager step, at the median rate."""
    gain_seconds: Estimate
    """What such an epoch gains; its interval is that of the ratio."""
    compile_seconds: float | None
    """What compiling took; None where nobody knows."""
    cache: str | None
    """How the compile cache was then: `cold` or `warm`."""
    pays_after: Estimate | None
    """Epochs until the gain has made up for `compile_seconds`; None unless it pays and the cost is known."""
    verdict: Verdict
    """`pays` if the whole interval of the ratio is above 1, `slower` if it is below."""


@dataclass(frozen=True, kw_only=True)
class StartUp:
    """From the command to the end of the first step."""

    name: str
    """eager, compiled-cold or compiled-warm."""
    seconds: Quartiles
    """How long that takes."""
    extra_seconds: float | None
    """Median less the eager median; None for eager itself and where that was not measured."""
    pays_after: Estimate | None
    """Epochs until the gain of the step that training compiles by default has made up for that, as in `Gain`."""


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """Cost and gain."""

    gains: list[Gain]
    """For every precision and layout that was measured both ways."""
    production: Gain | None
    """That of `PRODUCTION`."""
    start_up: list[StartUp]
    """Empty if not measured."""


def find_compiling(files: Sequence[BenchFile]) -> Compiling:
    """Cost and gain in the last files that have them."""
    steps = last_measured(files, "step")
    eager = {_variant(one): one for one in steps if _mode(one) == "eager"}
    pairs = [(one, eager[_variant(one)]) for one in steps if _mode(one) == "compiled" and _variant(one) in eager]
    gains = [_gain(*pair) for pair in pairs]
    production = next((gain for gain in gains if (gain.precision, gain.layout) == PRODUCTION), None)
    start_up = _start_up(last_measured(files, "start-up"), production)
    return Compiling(gains=gains, production=production, start_up=start_up)


def _gain(compiled: Measured, eager: Measured) -> Gain:
    precision, layout = _variant(compiled)
    ratio = compared(compiled.unit_seconds, eager.unit_seconds, paired=True)
    epoch = EPOCH_IMAGES / eager.rate.median
    gain = ratio.map(lambda times: epoch * (1 - 1 / times))
    cost = number(compiled.extra.facts, "compile_seconds")
    return Gain(
        precision=precision,
        layout=layout,
        ratio=ratio,
        epoch_seconds=epoch,
        gain_seconds=gain,
        compile_seconds=cost,
        cache=word(compiled.extra.facts, "compile_cache"),
        pays_after=_pays_after(cost, gain),
        verdict="pays" if ratio.above(1) else "slower" if ratio.below(1) else "no gain shown",
    )


def _pays_after(cost: float | None, gain: Estimate) -> Estimate | None:
    return gain.map(lambda saved: cost / saved) if cost is not None and cost > 0 and gain.above(0) else None


def _start_up(measured: Sequence[Measured], production: Gain | None) -> list[StartUp]:
    eager = named(measured, "eager")
    found = []
    for one in measured:
        seconds = quartiles(one.seconds)
        extra = None if eager is None or one is eager else seconds.median - quartiles(eager.seconds).median
        after = _pays_after(extra, production.gain_seconds) if production else None
        found.append(StartUp(name=one.name, seconds=seconds, extra_seconds=extra, pays_after=after))
    return found


def _variant(one: Measured) -> tuple[str, str]:
    return word(one.extra.facts, "precision") or "unknown precision", word(
        one.extra.facts, "layout"
    ) or "unknown layout"


def _mode(one: Measured) -> str | None:
    return word(one.extra.facts, "mode")
