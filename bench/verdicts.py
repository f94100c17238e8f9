"""What two measurements, made one after the other, allow to be said of a change."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.statistics import CONFIDENCE, Interval, holm, rank_tests, speed_ratio

LEVEL = 1 - CONFIDENCE
"""How often, at most, a verdict on speed is wrong: in one file of so many there is one or more of them."""
MINIMUM_EFFECT = 0.03
"""Share of the time by which two measurements of the same code may differ."""
MARGIN = 0.25
"""Points of accuracy that may be lost."""

Speed = Literal["faster", "slower", "no difference shown"]
Accuracy = Literal["not inferior", "inferior", "not shown", "too few runs"]
Timings = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class SpeedVerdict:
    """What is said of one benchmark."""

    ratio: Interval
    """How many times as fast as before."""
    p: float
    """Of the hypothesis that the time changed by the minimum effect at most; Holm's, two-sided."""
    verdict: Speed
    """`faster` or `slower` if p is below the level."""
    enough_rounds: bool
    """Whether so few rounds, among so many benchmarks, could have led to another verdict than the last one at all."""


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


def judge_speed(
    pairs: Sequence[tuple[Timings, Timings]], *, minimum_effect: float = MINIMUM_EFFECT
) -> list[SpeedVerdict]:
    """Verdicts on the benchmarks of a file, each given as its rounds before and after, in seconds for the same work.

    A benchmark is `slower` or `faster` if a rank test finds that its time changed by more than the minimum effect,
    after Holm's correction over all benchmarks of the file. What is tested is not whether anything changed at all:
    two files are not interleaved with one another, and between two sessions the same code drifts.

    How often this is right, by simulation: rounds are lognormal, 3 %, one in ten of them slow by 10 to 60 %, all
    independent. If nothing changed, or all drifted by 2 %, 1 file of 20 benchmarks in 100 holds a verdict, if that
    many; at a drift of exactly the minimum effect, 1 in 20 at most. A file compared with itself never does. And a
    benchmark that became slower is found, alone and as the only one of 20 in its file:

        rounds    5 %              10 %             20 %
        10        15 % and 2 %      84 % and 44 %     95 % and 76 %
        20        34 % and 6 %      99 % and 88 %    100 % and 98 %
        40        60 % and 21 %    100 % and 99 %    100 % and 100 %

    With a minimum effect of 1 %, 5 % are found in 51 % and 14 %, 86 % and 43 %, 99 % and 88 %. That is for machines
    that drift no more.

    Where slow rounds come in spells (a neighbour at work for four rounds on average), all rounds of a benchmark may
    fall into one, and no test can know whose fault that is: 4 of 10 files of 20 benchmarks then hold a false verdict
    with 10 rounds, 2 of 10 with 20, 1 of 20 with 40.
    """
    if not pairs:
        return []
    slower, faster = np.array(
        [[float(p) for p in rank_tests(before, after, minimum_effect=minimum_effect)] for before, after in pairs]
    ).T
    adjusted, verdicts = verdicts_of(slower, faster)
    return [
        SpeedVerdict(
            ratio=speed_ratio(after, before, paired=False),
            p=float(p),
            verdict=verdict,
            enough_rounds=2 * len(pairs) / math.comb(len(before) + len(after), len(before)) < LEVEL,
        )
        for (before, after), p, verdict in zip(pairs, adjusted, verdicts, strict=True)
    ]


def verdicts_of(slower: ArrayLike, faster: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """The p-values of two one-sided tests of each benchmark (..., benchmarks), as adjusted p-values and `Speed`."""
    adjusted = holm(np.minimum(1, 2 * np.minimum(slower, faster)))
    direction = np.where(np.less(slower, faster), "slower", "faster")
    return adjusted, np.where(adjusted < LEVEL, direction, "no difference shown")


def judge_accuracy(before: Sequence[float], after: Sequence[float], *, margin: float = MARGIN) -> AccuracyVerdict:
    """Whether runs lost no more accuracy than a margin: a test of non-inferiority on independent runs.

    Welch's t-test (B. L. Welch, Biometrika 34, 1947), one-sided at 2.5 % as ICH E9 has it, which is to say: `not
    inferior` if the 95 % interval of the difference lies above minus the margin, `inferior` if it lies below, else
    `not shown`. Normal accuracies are called either wrongly in at most 2.5 % of cases. With fewer than two runs a
    side, there is nothing to judge by: `too few runs`; nor is there if no two runs of a side differ: `not shown`.

    Args:
        before, after: accuracies in percent.
        margin: in points.
    """
    from scipy.stats import ttest_ind

    points = float(np.mean(after) - np.mean(before))
    if min(len(before), len(after)) < 2:
        return AccuracyVerdict(points=points, interval=None, p=None, verdict="too few runs")
    if len({*before}) == len({*after}) == 1:
        return AccuracyVerdict(points=points, interval=None, p=None, verdict="not shown")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that one side has no spread, which Welch's test allows for
        interval = ttest_ind(after, before, equal_var=False).confidence_interval(CONFIDENCE)
        p = ttest_ind(np.add(after, margin), before, equal_var=False, alternative="greater").pvalue
    level = LEVEL / 2
    verdict: Accuracy = "not inferior" if p < level else "inferior" if p > 1 - level else "not shown"
    return AccuracyVerdict(
        points=points,
        interval=Interval(value=points, low=float(interval.low), high=float(interval.high)),
        p=float(p),
        verdict=verdict,
    )


def in_short(speed: Speed, accuracy: Accuracy) -> str:
    """Both verdicts in words: a speed-up that costs accuracy is called that."""
    if speed == "faster":
        return {
            "not inferior": "a speed-up that keeps the accuracy",
            "inferior": "a speed-up that costs accuracy",
            "not shown": "a speed-up of which it is not shown that it keeps the accuracy",
            "too few runs": "a speed-up, with too few runs to tell whether it keeps the accuracy",
        }[accuracy]
    return f"speed: {speed}; accuracy: {accuracy}"
