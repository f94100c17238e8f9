"""What a handful of timings says, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cifarfast.accuracy import CONFIDENCE, Interval, welch

NOISY_SPREAD = 0.10
"""An interquartile range wider than this share of the median is called noisy."""
ENOUGH = 5
"""Rounds from which the interval of `speed_ratio` is about as wide as it should be."""
_RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 1 << 20
"""Figures drawn at a time: what bounds the memory."""
_MOST_EXACT = 50
"""Rounds up to which the rank test counts orders; with more, the normal distribution is as good and much faster."""


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


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles (linear interpolation) of at least one figure."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Quartiles(median=float(median), low=float(low), high=float(high), n=len(values))


def speed_ratio(seconds: Sequence[float], baseline: Sequence[float], *, paired: bool) -> Interval:
    """How many times faster than a baseline: the ratio of the medians, with its 95 % bootstrap interval.

    Percentile bootstrap (B. Efron, Annals of Statistics 7, 1979), always with the same seed. Where rounds are
    independent, the interval covers the true ratio in 93 to 98 % of cases from 5 rounds on; with 4 in 93 %, with 3
    in 90 %, with 2 in 67 % (paired: 88, 74 and 52 %). Slow spells that last for several rounds cost another 5 to 10
    points. A single round has no spread, and no interval: both ends are then the ratio itself.

    Args:
        seconds, baseline: seconds for the same work, one a round.
        paired: whether round i of both was timed side by side; then rounds are drawn, not figures.

    Raises:
        ValueError: paired rounds are not equally many.
    """
    from scipy.stats import bootstrap

    if paired and len(seconds) != len(baseline):
        raise ValueError(f"{len(seconds)} and {len(baseline)} rounds are not pairs")
    value = float(_ratio(baseline, seconds))
    if min(len(seconds), len(baseline)) < 2:
        return Interval(value=value, low=value, high=value)
    drawn = bootstrap(
        (baseline, seconds),
        _ratio,
        n_resamples=_RESAMPLES,
        batch=max(1, _RESAMPLES_AT_ONCE // max(len(seconds), len(baseline))),
        vectorized=True,
        paired=paired,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value=value, low=float(drawn.low), high=float(drawn.high))


def rank_tests(before: ArrayLike, after: ArrayLike, *, minimum_effect: float) -> tuple[Any, Any]:
    """Whether rounds became slower, and whether they became faster, by more than a minimum effect.

    Two one-sided tests by ranks (H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics 18, 1947) of `after`
    against `before` times 1 + minimum_effect, and the other way round; exact without ties and up to 50 rounds.

    Args:
        before, after: (..., rounds) seconds for the same work, one a round; not paired.
        minimum_effect: a share of the time.

    Returns:
        (...) p of the hypothesis that they did not become slower by more than that, and likewise faster.
    """
    before, after = np.asarray(before), np.asarray(after)
    return _greater(after, before * (1 + minimum_effect)), _greater(before, after * (1 + minimum_effect))


def t_tests(before: ArrayLike, after: ArrayLike, *, minimum_effect: float) -> tuple[Any, Any]:
    """What `rank_tests` tests, by Welch's t-test on the logarithms: for rounds too few to be told apart by their order.

    Takes at least two rounds a side; timings without any spread differ surely, or not at all.
    """
    before, after, effect = np.log(before), np.log(after), np.log1p(minimum_effect)
    slower = welch(after - effect, before, alternative="greater").pvalue
    faster = welch(before - effect, after, alternative="greater").pvalue
    return np.nan_to_num(slower, nan=1.0), np.nan_to_num(faster, nan=1.0)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for being many: all below a level are, together, wrong at most that often.

    Step-down (S. Holm, Scandinavian Journal of Statistics 6, 1979), whatever the dependence between the tests.

    Args:
        p: (..., tests).
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1), axis=-1)
    return adjusted


def _ratio(baseline: Any, seconds: Any, axis: int = -1) -> Any:
    return np.median(baseline, axis=axis) / np.median(seconds, axis=axis)


def _greater(x: NDArray[Any], y: NDArray[Any]) -> Any:
    from scipy.stats import mannwhitneyu

    together = np.sort(np.concatenate([x, y], axis=-1), axis=-1)
    exact = max(x.shape[-1], y.shape[-1]) <= _MOST_EXACT and np.diff(together, axis=-1).all()
    return mannwhitneyu(x, y, alternative="greater", axis=-1, method="exact" if exact else "asymptotic").pvalue
