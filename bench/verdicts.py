"""What two measurements, made one after the other, allow to be said of a change."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.statistics import CONFIDENCE, Interval, holm, rank_tests, speed_ratio

LEVEL = 0.05
"""Share of files, at most, of which a verdict on speed is wrong, be it one or several."""
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
    """Whether there are rounds enough, among so many benchmarks, for any verdict but the last."""


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

    How often this is right, by simulation (independent rounds, lognormal with 3 %, one in ten slow by another 10 to
    60 %): where nothing changed, or all of a file drifted by 2 %, at most 1 of 100 files of 20 benchmarks holds a
    verdict; where all drifted by exactly the minimum effect, at most 1 of 20. A file compared with itself never
    holds one. A benchmark that became slower is found, alone in its file and as the only one among 20:

        rounds    5 %              10 %             20 %
        10        15 % and 2 %      84 % and 44 %     95 % and 76 %
        20        34 % and 6 %      99 % and 88 %    100 % and 98 %
        40        60 % and 21 %    100 % and 99 %    100 % and 100 %

    With a minimum effect of 1 %, on a machine that drifts no more, the first column is 51 % and 14 %, 86 % and 43 %,
    99 % and 88 %.

    Where slow rounds come in spells (a neighbour at work for four rounds on average), all rounds of a benchmark may
    fall into one, and no test can know whose fault that is: of files of 20 benchmarks, 4 in 10 then hold a false
    verdict with 10 rounds, 2 in 10 with 20 rounds, 1 in 20 with 40.

    Args:
        pairs: at least one.
        minimum_effect: a share of the time.
    """
    slower, faster = np.array(
        [[float(p) for p in rank_tests(before, after, minimum_effect=minimum_effect)] for before, after in pairs]
    ).T
    adjusted, verdicts = verdicts_of(slower, faster)
    return [
        SpeedVerdict(
            ratio=speed_ratio(after, before, paired=False),
            p=p,
            verdict=verdict,
            enough_rounds=p < LEVEL or len(pairs) * _least_p(len(before), len(after)) < LEVEL,
        )
        for (before, after), p, verdict in zip(pairs, adjusted.tolist(), verdicts.tolist(), strict=True)
    ]


def verdicts_of(slower: ArrayLike, faster: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """The p-values of two one-sided tests of each benchmark (..., benchmarks), as adjusted p-values and `Speed`."""
    adjusted = holm(np.minimum(1, 2 * np.minimum(slower, faster)))
    direction = np.where(np.less(slower, faster), "slower", "faster")
    return adjusted, np.where(adjusted < LEVEL, direction, "no difference shown")


def _least_p(before: int, after: int) -> float:
    """Of the two rank tests together: all rounds of one side are above all of the other."""
    return 2 / math.comb(before + after, before)


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
