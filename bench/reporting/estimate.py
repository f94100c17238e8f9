"""A ratio of speeds, and how sure it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.statistics import speed_ratio


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    """The figure."""
    low: float | None
    """Lower end; None where nothing is known of the spread, because there was only one round."""
    high: float | None
    """Upper end, likewise."""

    def above(self, limit: float) -> bool:
        """Whether the whole interval is."""
        return self.low is not None and self.low > limit

    def below(self, limit: float) -> bool:
        """Whether the whole interval is."""
        return self.high is not None and self.high < limit

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """A function of the figure, which rises or falls all the way."""
        ends = [None if end is None else function(end) for end in (self.low, self.high)]
        if None not in ends:
            ends.sort()
        return Estimate(value=function(self.value), low=ends[0], high=ends[1])


def compared(seconds: Sequence[float], baseline: Sequence[float], *, paired: bool) -> Estimate:
    """How many times faster than a baseline, as `speed_ratio` says it.

    Rounds that cannot be pairs, because there are more of the one, are not taken for pairs.
    """
    found = speed_ratio(seconds, baseline, paired=paired and len(seconds) == len(baseline))
    if min(len(seconds), len(baseline)) < 2:
        return Estimate(value=found.value, low=None, high=None)
    return Estimate(value=found.value, low=found.low, high=found.high)
