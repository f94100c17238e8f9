"""What the accuracies of a handful of runs say, and how surely. Everything is in percent and points."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
LEVEL = 0.025
"""Of every test of accuracy, one-sided, as ICH E9 has it: what the 95 % interval says on one side."""
MARGIN = 0.25
"""Points of accuracy that may be lost."""

Accuracy = Literal["not inferior", "inferior", "not shown", "too few runs"]
Reaches = Literal["met", "not met", "not shown", "too few runs"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AccuracyVerdict:
    """What is said of the accuracies of two sets of runs."""

    points: float
    """Mean of the later runs minus mean of the earlier ones, in points."""
    interval: Interval | None
    """The same with its 95 % interval (Welch's); None without two runs a side, or without any spread."""
    p: float | None
    """Of the hypothesis that the later runs are worse by the margin or more, one-sided; None likewise."""
    verdict: Accuracy
    """What that comes to."""


@dataclass(frozen=True, kw_only=True)
class TargetVerdict:
    """What is said of the accuracies of some runs and a target."""

    p: float | None
    """Of the hypothesis that the true mean is below the target, one-sided; None of one run, or without any spread."""
    verdict: Reaches
    """`met` if that is rejected, `not met` if its opposite is."""


def mean_interval(accuracies: Sequence[float]) -> Interval | None:
    """Mean of independent runs with its 95 % interval by Student's t; None for less than two runs."""
    from scipy.stats import t

    n = len(accuracies)
    if n < 2:
        return None
    mean = float(np.mean(accuracies))
    half = float(np.std(accuracies, ddof=1)) / math.sqrt(n) * float(t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Interval(value=mean, low=mean - half, high=mean + half)


def judge_target(accuracies: Sequence[float], target: float) -> TargetVerdict:
    """Whether the true mean of runs is at or above a target: Student's t-test, one-sided at 2.5 %.

    That is to say: `met` if the 95 % interval of the mean lies above the target, `not met` if it lies below, else `not
    shown`; of normal accuracies either is wrongly said in at most 2.5 % of cases.

    Args:
        accuracies: in percent.
        target: in percent.
    """
    if len(accuracies) < 2:
        return TargetVerdict(p=None, verdict="too few runs")
    if len({*accuracies}) == 1:
        return TargetVerdict(p=None, verdict="not shown")
    from scipy.stats import ttest_1samp

    p = float(ttest_1samp(accuracies, target, alternative="greater").pvalue)
    return TargetVerdict(p=p, verdict="met" if p < LEVEL else "not met" if p > 1 - LEVEL else "not shown")


def judge_accuracy(before: Sequence[float], after: Sequence[float], *, margin: float = MARGIN) -> AccuracyVerdict:
    """Whether runs lost no more accuracy than a margin: a test of non-inferiority on independent runs.

    Welch's t-test, one-sided at 2.5 %. That is to say: `not inferior` if the 95 % interval of the difference lies above
    minus the margin, `inferior` if it lies below, else `not shown`; of normal accuracies either is wrongly said in at
    most 2.5 % of cases. With fewer than two runs a side there is nothing to judge by (`too few runs`), and nothing is
    shown where no two runs of a side differ.

    Args:
        before, after: accuracies in percent.
        margin: in points.
    """
    points = float(np.mean(after) - np.mean(before))
    if min(len(before), len(after)) < 2:
        return AccuracyVerdict(points=points, interval=None, p=None, verdict="too few runs")
    if len({*before}) == len({*after}) == 1:
        return AccuracyVerdict(points=points, interval=None, p=None, verdict="not shown")
    interval = welch(after, before).confidence_interval(CONFIDENCE)
    p = welch(np.add(after, margin), before, alternative="greater").pvalue
    verdict: Accuracy = "not inferior" if p < LEVEL else "inferior" if p > 1 - LEVEL else "not shown"
    return AccuracyVerdict(
        points=points,
        interval=Interval(value=points, low=float(interval.low), high=float(interval.high)),
        p=float(p),
        verdict=verdict,
    )


def welch(x: ArrayLike, y: ArrayLike, *, alternative: str = "two-sided") -> Any:
    """scipy's result of a t-test (..., figures) for unequal variances (B. L. Welch, Biometrika 34, 1947)."""
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that one side has no spread, which the test allows for
        return ttest_ind(x, y, axis=-1, equal_var=False, alternative=alternative)
