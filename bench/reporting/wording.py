"""Figures as a person reads them."""

import math

from bench.reporting.estimate import Estimate
from bench.statistics import Quartiles
from cifarfast.reporting.writing import THIN

NONE = "not measured"
NOISY = "noisy"
TIMES = "\u00d7"
_UNITS = {"images": ("images/s", 1.0), "FLOP": ("GFLOP/s", 1e9), "bytes": ("GB/s", 1e9)}


def unit_of(unit: str | None) -> str:
    """What a rate is told in; seconds where there is none."""
    return "seconds" if unit is None else _UNITS.get(unit, (f"{unit}/s", 1.0))[0]


def scaled(value: float, unit: str | None) -> float:
    """A rate in that unit."""
    return value if unit is None else value / _UNITS.get(unit, (unit, 1.0))[1]


def figure(value: float) -> str:
    """Three digits, with commas."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    digits = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, digits)}f}" if -10 < digits < 7 else f"{value:.3g}"


def middle(found: Quartiles, unit: str | None) -> str:
    """Median, quartiles in brackets; of a single figure that alone."""
    median, low, high = (figure(scaled(value, unit)) for value in (found.median, found.low, found.high))
    return f"{median} ({low} to {high})" if found.n > 1 else median


def interval(found: Estimate) -> str:
    """Value, 95 % interval in brackets where there is one."""
    return figure(found.value) + _brackets(found)


def percents(found: Estimate) -> str:
    """A share of 1 in per cent, 95 % interval in brackets where there is one."""
    hundred = found.map(lambda part: 100 * part)
    return f"{figure(hundred.value)}{THIN}%" + _brackets(hundred)


def _brackets(found: Estimate) -> str:
    return "" if found.low is None or found.high is None else f" ({figure(found.low)} to {figure(found.high)})"


def percent(value: float) -> str:
    """A percentage, as a person says it."""
    return f"{value:.3g}{THIN}%" if value >= 0.1 or value == 0 else f"under 0.1{THIN}%"
