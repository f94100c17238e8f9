"""The learning rate range test: raise the learning rate step by step, watch the loss, suggest a rate.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186). This module knows
neither networks nor files: `measure` is told how to train one step, and everything after it is a pure
function of the curve. `cifarfast.lr_range` applies it to models.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from cifarfast.checks import at_least, between, one_of, positive

MIN_POINTS = 5
# A fall that is no larger than this many usual differences between neighbouring losses may be chance: with the
# default settings, fewer than 5 % of 400 sweeps of pure Gaussian noise fell further.
MIN_FALL = 3.0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which learning rates are tried, and when the test gives up."""

    start_lr: float = 1e-6
    """First learning rate, so low that nothing happens yet."""
    end_lr: float = 1.0
    """Last learning rate."""
    num_iter: int = 48
    """Optimizer steps, one a learning rate."""
    mode: Literal["exponential", "linear"] = "exponential"
    """Whether neighbouring learning rates have the same ratio or the same difference."""
    smoothing: float = 0.2
    """Share of the newest loss in the running mean, above 0; 1 leaves the losses as they are."""
    divergence: float = 4.0
    """Stop where the smoothed loss exceeds so many times its lowest value."""

    def __post_init__(self) -> None:
        positive("start_lr", self.start_lr)
        positive("end_lr", self.end_lr)
        if self.start_lr >= self.end_lr:
            raise ValueError(f"end_lr must be above start_lr ({self.start_lr}), not {self.end_lr}")
        at_least("num_iter", self.num_iter, 2)
        one_of("mode", self.mode, ("exponential", "linear"))
        positive("smoothing", self.smoothing)
        between("smoothing", self.smoothing, 0.0, 1.0)
        positive("divergence", self.divergence)
        if self.divergence <= 1:
            raise ValueError(f"divergence must be above 1, not {self.divergence}")

    def lr(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        between("step", step, 0, self.num_iter - 1)
        fraction = step / (self.num_iter - 1)
        if self.mode == "linear":
            return self.start_lr + (self.end_lr - self.start_lr) * fraction
        return self.start_lr * math.pow(self.end_lr / self.start_lr, fraction)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step of the sweep."""

    lr: float
    """Learning rate of the step."""
    loss: float | None
    """The step's loss, null where it was NaN or infinite."""
    smoothed: float | None
    """Running mean of the losses up to here, null likewise."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A learning rate, or why there is none."""

    lr: float | None
    """The suggestion, null where the curve supports none."""
    reason: str | None
    """Why there is none, null where there is one."""


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """What the curve suggests, by three rules: the functions of the same names define them.

    A fresh network's loss falls at once at any rate that moves it. A sweep that starts at such a rate sees the fall
    from its first step on, wherever it starts: then there is neither a steepest descent nor a valley.
    """

    steepest: Suggestion
    """Where the loss falls fastest: the usual choice of max_lr, where the sweep begins near it."""
    minimum_tenth: Suggestion
    """A tenth of the rate with the lowest loss."""
    valley: Suggestion
    """The middle of the longest fall."""


@dataclass(frozen=True, kw_only=True)
class LrRange:
    """The curve of a range test and what it suggests."""

    sweep: Sweep
    """The settings."""
    points: tuple[Point, ...]
    """One a step that was taken, in order."""
    stopped: Literal["end", "diverged", "non-finite"]
    """Why the sweep ended: all rates were tried, the loss rose too far, or it became NaN or infinite."""
    suggestions: Suggestions
    """From the part of the curve before the loss diverged."""

    @property
    def answer(self) -> Suggestion:
        """The suggestion that is taken where nobody looks at the curve."""
        return self.suggestions.steepest


def measure(advance: Callable[[float], float], sweep: Sweep) -> LrRange:
    """Take one step at every learning rate of the sweep.

    A loss that is NaN or infinite ends the sweep and never enters the running mean; so does a smoothed
    loss that has diverged. The last point is the one that ended it.

    Args:
        advance: trains one step at the learning rate it is given and returns the loss.
    """
    points: list[Point] = []
    stopped: Literal["end", "diverged", "non-finite"] = "end"
    smoothed, lowest = None, math.inf
    for step in range(sweep.num_iter):
        lr = sweep.lr(step)
        loss = advance(lr)
        if not math.isfinite(loss):
            points.append(Point(lr=lr, loss=None, smoothed=None))
            stopped = "non-finite"
            break
        smoothed = loss if smoothed is None else sweep.smoothing * loss + (1 - sweep.smoothing) * smoothed
        lowest = min(lowest, smoothed)
        points.append(Point(lr=lr, loss=loss, smoothed=smoothed))
        # For a loss above zero: smoothed > divergence * lowest. The rise counts where a loss may be negative.
        if smoothed - lowest > (sweep.divergence - 1) * abs(lowest):
            stopped = "diverged"
            break
    usable = points if stopped == "end" else points[:-1]
    suggestions = suggest(usable, complete=stopped == "end", smoothing=sweep.smoothing)
    return LrRange(sweep=sweep, points=tuple(points), stopped=stopped, suggestions=suggestions)


def suggest(points: Sequence[Point], *, complete: bool, smoothing: float) -> Suggestions:
    """All suggestions of a curve, or the reason that there are none.

    Args:
        points: the part before divergence; every loss is finite.
        complete: whether the sweep ended there for want of further learning rates.
        smoothing: the sweep's.
    """
    lrs = [point.lr for point in points]
    losses = [point.loss for point in points if point.loss is not None]
    smoothed = [point.smoothed for point in points if point.smoothed is not None]
    reason = _no_fall(losses, smoothed)
    if reason is not None:
        none = Suggestion(lr=None, reason=reason)
        return Suggestions(steepest=none, minimum_tenth=none, valley=none)
    minimum = _minimum_tenth(lrs, smoothed, complete)
    fastest = steepest(lrs, smoothed)
    if lrs.index(fastest) < 1 / smoothing:  # the number of losses that the running mean remembers
        begun = f"the loss falls fastest at the first rates, from {lrs[0]:.3g} on: start at a lower one"
        none = Suggestion(lr=None, reason=begun)
        return Suggestions(steepest=none, minimum_tenth=minimum, valley=none)
    return Suggestions(
        steepest=Suggestion(lr=fastest, reason=None),
        minimum_tenth=minimum,
        valley=Suggestion(lr=valley(lrs, smoothed), reason=None),
    )


def steepest(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate, not above that of the lowest loss, at which the loss falls fastest per log learning rate.

    The derivative is `numpy.gradient`'s: central differences, one-sided at both ends.
    """
    import numpy as np  # the commands' --help imports this module and does without

    slopes = np.gradient(np.array(losses), np.log(lrs))
    return lrs[int(slopes[: _argmin(losses) + 1].argmin())]


def minimum_tenth(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the learning rate with the lowest loss."""
    return lrs[_argmin(losses)] / 10


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate half way, in steps, through the longest fall.

    The longest fall is the longest subsequence in which every loss is below the one before it, so that a
    bump does not end it. The rule is that of fastai's and ESRI's `valley`.
    """
    fall = longest_fall(losses)
    return lrs[(fall[0] + fall[-1]) // 2]


def longest_fall(losses: Sequence[float]) -> list[int]:
    """Positions of a longest strictly decreasing subsequence, by patience sorting (Fredman, 1975)."""
    heights: list[float] = []  # heights[k]: minus the last loss of the best fall of k + 1 losses so far
    ends: list[int] = []  # where that fall ends
    before: list[int] = []  # for each loss, the position before it in its fall, -1 for none
    for position, loss in enumerate(losses):
        length = bisect_left(heights, -loss)
        before.append(ends[length - 1] if length else -1)
        heights[length : length + 1] = [-loss]
        ends[length : length + 1] = [position]
    fall = [ends[-1]]
    while before[fall[-1]] >= 0:
        fall.append(before[fall[-1]])
    return fall[::-1]


def _no_fall(losses: Sequence[float], smoothed: Sequence[float]) -> str | None:
    """Why the curve supports no suggestion at all, None where it does."""
    if len(losses) < MIN_POINTS:
        return f"only {len(losses)} usable losses, {MIN_POINTS} are needed: start at a lower rate, or take more steps"
    differences = [abs(after - before) for before, after in pairwise(losses)]
    lowest = _argmin(smoothed)
    fall, noise = max(smoothed[: lowest + 1]) - smoothed[lowest], statistics.median(differences)
    if fall <= MIN_FALL * noise:
        return (
            f"the smoothed loss falls by {fall:.3g}, no more than {MIN_FALL:g} times the usual difference of two "
            f"neighbouring losses ({noise:.3g}): sweep other rates, or in more steps"
        )
    return None


def _minimum_tenth(lrs: Sequence[float], smoothed: Sequence[float], complete: bool) -> Suggestion:
    lowest, lr = _argmin(smoothed), minimum_tenth(lrs, smoothed)
    if complete and lowest == len(lrs) - 1:
        return Suggestion(lr=None, reason=f"the loss is lowest at the last rate ({lrs[-1]:.3g}): end at a higher one")
    if lr < lrs[0]:
        return Suggestion(lr=None, reason=f"{lr:.3g} lies below the first rate ({lrs[0]:.3g}): start at a lower one")
    return Suggestion(lr=lr, reason=None)


def _argmin(values: Sequence[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)
