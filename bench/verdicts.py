"""What two measurements, made one after the other, allow to be said of a change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.statistics import holm, rank_tests, speed_ratio, t_tests
from cifarfast.accuracy import Accuracy, Interval

LEVEL = 0.05
"""Share of files, at most, of which a verdict on speed is wrong, be it one or several."""
MINIMUM_EFFECT = 0.03
"""Share of the time by which two measurements of the same code may differ."""

Speed = Literal["faster", "slower", "no difference shown", "too few to tell"]
Test = Literal["ranks", "t", "none"]
Timings = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class SpeedVerdict:
    """What is said of one benchmark."""

    ratio: Interval
    """How many times as fast as before."""
    p: float
    """Of the hypothesis that the time changed by the minimum effect at most; Holm's, two-sided."""
    verdict: Speed
    """`faster` or `slower` if p is below the level; too few to tell where one side has a single round."""
    test: Test
    """Of the order of the rounds; Welch's t where there are too few rounds for that; none of a single round."""


def judge_speed(
    pairs: Sequence[tuple[Timings, Timings]], *, minimum_effect: float = MINIMUM_EFFECT
) -> list[SpeedVerdict]:
    """Verdicts on the benchmarks of a file, each given as its rounds before and after, in seconds for the same work.

    A benchmark is `slower` or `faster` if a test finds that its time changed by more than the minimum effect, after
    Holm's correction over all benchmarks of the file: a rank test where there are rounds enough for one to find
    anything, else Welch's t-test on the logarithms. What is tested is not whether anything changed at all: two files
    are not interleaved with one another, and between two sessions the same code drifts.

    How often this is right, by simulation (independent rounds, lognormal with 3 %, one in ten slow by another 10 to
    60 %): where nothing changed, or all of a file drifted by 2 %, at most 1 of 100 files of 60 benchmarks holds a
    verdict; where all drifted by exactly the minimum effect, at most 1 of 20. A file compared with itself never
    holds one. A benchmark that became slower is found, alone in its file and as the only one among 60:

        rounds    5 %              10 %             20 %             50 %
         5         7 % and  0 %     45 % and   4 %    63 % and  31 %    87 % and  50 %
        10        16 % and  1 %     84 % and  29 %    96 % and  48 %   100 % and  86 %
        20        35 % and  3 %     99 % and  81 %   100 % and  98 %   100 % and 100 %
        40        60 % and 12 %    100 % and 100 %   100 % and 100 %   100 % and 100 %

    Without the slow rounds, as on a quiet machine, the 20 % among 60 are found in 88 % with 5 rounds, 100 % with 10.
    With a minimum effect of 1 %, for a machine that drifts no more, 5 % are found in 52 % and 7 % with 10 rounds,
    99 % and 80 % with 40. So a small change wants many rounds of few benchmarks.

    Where slow rounds come in spells (a neighbour at work for four rounds on average), all rounds of a benchmark may
    fall into one, and no test can know whose fault that is: of files of 60 benchmarks, 64 % then hold a false verdict
    with 10 rounds, 35 % with 20, 11 % with 40.

    Args:
        pairs: at least one.
        minimum_effect: a share of the time.
    """
    tested = [change_tests(*pair, benchmarks=len(pairs), minimum_effect=minimum_effect) for pair in pairs]
    tests, slower, faster = zip(*tested, strict=True)
    adjusted, verdicts = verdicts_of(slower, faster)
    judged = zip(pairs, adjusted.tolist(), verdicts.tolist(), tests, strict=True)
    return [
        SpeedVerdict(
            ratio=speed_ratio(after, before, paired=False),
            p=p,
            verdict="too few to tell" if test == "none" else verdict,
            test=test,
        )
        for (before, after), p, verdict, test in judged
    ]


def change_tests(
    before: ArrayLike, after: ArrayLike, *, benchmarks: int, minimum_effect: float
) -> tuple[Test, Any, Any]:
    """The test that fits the number of rounds, and its p as `rank_tests` has them.

    Args:
        before, after: (..., rounds) seconds for the same work.
        benchmarks: how many the verdict will be corrected for.
        minimum_effect: a share of the time.
    """
    before, after = np.asarray(before), np.asarray(after)
    here, there = before.shape[-1], after.shape[-1]
    # Of ranks, p cannot be less than that of two sides which do not overlap; there are two such tests.
    if 2 * benchmarks / math.comb(here + there, here) < LEVEL:
        return "ranks", *rank_tests(before, after, minimum_effect=minimum_effect)
    if min(here, there) > 1:
        return "t", *t_tests(before, after, minimum_effect=minimum_effect)
    return "none", np.ones(before.shape[:-1]), np.ones(before.shape[:-1])


def verdicts_of(slower: ArrayLike, faster: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """The p-values of two one-sided tests of each benchmark (..., benchmarks), as adjusted p-values and `Speed`."""
    adjusted = holm(np.minimum(1, 2 * np.minimum(slower, faster)))
    direction = np.where(np.less(slower, faster), "slower", "faster")
    return adjusted, np.where(adjusted < LEVEL, direction, "no difference shown")


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
