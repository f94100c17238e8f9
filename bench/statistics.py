"""What a handful of timings says, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISY_SPREAD = 0.10
"""An interquartile range wider than this share of the median is called noisy."""
CONFIDENCE = 0.95
_RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Quartiles:
    """The middle half of some figures."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    n: int

    @property
    def noisy(self) -> bool:
        """Whether the middle half is so wide that a reader must be told."""
        return self.high - self.low > NOISY_SPREAD * self.median


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles (linear interpolation) of at least one figure."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Quartiles(median=float(median), low=float(low), high=float(high), n=len(values))


def speed_ratio(seconds: Sequence[float], baseline: Sequence[float], *, paired: bool) -> Interval:
    """How many times faster than a baseline: the ratio of the medians, with its 95 % bootstrap interval.

    Percentile bootstrap (B. Efron, Annals of Statistics 7, 1979), always with the same seed.

    Args:
        seconds, baseline: seconds for the same work, one a round.
        paired: whether round i of both was timed side by side; then rounds are drawn, not figures.

    Raises:
        ValueError: paired rounds are not equally many.
    """
    if paired and len(seconds) != len(baseline):
        raise ValueError(f"{len(seconds)} and {len(baseline)} rounds are not pairs")
    rng = np.random.default_rng(0)
    ours, theirs = np.asarray(seconds), np.asarray(baseline)
    chosen = rng.integers(len(ours), size=(_RESAMPLES, len(ours)))
    others = chosen if paired else rng.integers(len(theirs), size=(_RESAMPLES, len(theirs)))
    ratios = np.median(theirs[others], axis=1) / np.median(ours[chosen], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail))
    return Interval(value=float(np.median(theirs) / np.median(ours)), low=float(low), high=float(high))
