"""What the verdicts on accuracy are worth, held against their formulas and by simulation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom, t

from cifarfast.accuracy import LEVEL, MARGIN, Interval, judge_accuracy, judge_target, mean_interval

SURELY = 1e-4
"""Probability at which a simulation that is as it should be would fail."""


def welch(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Difference, its standard error and the degrees of freedom, from Welch's paper."""
    a, b = (np.var(values, ddof=1) / len(values) for values in (before, after))
    freedom = (a + b) ** 2 / (a**2 / (len(before) - 1) + b**2 / (len(after) - 1))
    return float(np.mean(after) - np.mean(before)), math.sqrt(a + b), float(freedom)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ([91.5, 91.4, 91.6, 91.5], "not inferior"),
        ([91.5, 90.6, 92.3], "not shown"),
        ([91.4, 91.35, 91.45, 91.25], "not shown"),  # at 5 % it would not be inferior
        ([90.5, 90.6, 90.4], "inferior"),
        ([91.5], "too few runs"),
    ],
)
def test_accuracy_is_judged_by_welchs_interval(after: list[float], verdict: str) -> None:
    before = [91.5, 91.55, 91.4, 91.45, 91.6]
    found = judge_accuracy(before, after)
    assert found.verdict == verdict
    assert found.points == pytest.approx(np.mean(after) - np.mean(before))
    if verdict == "too few runs":
        assert (found.interval, found.p) == (None, None)
        return
    points, error, freedom = welch(before, after)
    half = error * t.ppf(0.975, freedom)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((points - half, points + half))
    assert found.p == pytest.approx(t.sf((points + MARGIN) / error, freedom))
    assert _read_off(found.interval) == verdict


def _read_off(interval: Interval) -> str:
    if interval.low > -MARGIN:
        return "not inferior"
    return "inferior" if interval.high < -MARGIN else "not shown"


@pytest.mark.parametrize("runs", [2, 5])
def test_accuracy_is_wrongly_judged_at_most_as_often_as_the_level(runs: int) -> None:
    """At a true loss of exactly the margin, either verdict is at the edge of being wrong; spreads are not the same."""
    rng = np.random.default_rng(runs)
    repetitions = 250
    sets = zip(rng.normal(91.5, 0.2, (repetitions, runs)), rng.normal(91.25, 0.1, (repetitions, runs)), strict=True)
    verdicts = [judge_accuracy(list(before), list(after)).verdict for before, after in sets]
    for wrong in ("inferior", "not inferior"):
        assert verdicts.count(wrong) <= binom.ppf(1 - SURELY, repetitions, LEVEL)


def test_accuracy_without_any_spread_is_not_judged() -> None:
    found = judge_accuracy([90.0, 90.0], [95.0, 95.0])
    assert (found.verdict, found.points, found.interval, found.p) == ("not shown", 5.0, None, None)
    assert judge_accuracy([90.0, 90.0], [95.0, 95.1]).verdict == "not inferior"


ACCURACIES = [91.5, 91.55, 91.4, 91.45, 91.6]


def test_the_interval_of_a_mean_is_students() -> None:
    found = mean_interval(ACCURACIES)
    assert found is not None
    error = math.sqrt(sum((x - 91.5) ** 2 for x in ACCURACIES) / 4 / 5)
    assert (found.value, found.low, found.high) == pytest.approx(
        (91.5, 91.5 - 2.776445 * error, 91.5 + 2.776445 * error)
    )
    assert mean_interval([91.5]) is None


@pytest.mark.parametrize(
    ("target", "verdict"), [(91.39, "met"), (91.42, "not shown"), (91.58, "not shown"), (91.61, "not met")]
)
def test_a_target_is_judged_by_the_interval_of_the_mean(target: float, verdict: str) -> None:
    found, interval = judge_target(ACCURACIES, target), mean_interval(ACCURACIES)
    assert found.verdict == verdict
    assert interval is not None
    error = (interval.high - interval.value) / t.ppf(0.975, 4)
    assert found.p == pytest.approx(t.sf((91.5 - target) / error, 4))
    assert (target < interval.low, target > interval.high) == (verdict == "met", verdict == "not met")


def test_a_target_wants_two_runs_that_differ() -> None:
    assert judge_target([99.0], 91.42).verdict == "too few runs"
    assert judge_target([99.0, 99.0], 91.42).verdict == "not shown"


@pytest.mark.parametrize("runs", [2, 5])
def test_a_target_is_wrongly_judged_at_most_as_often_as_the_level(runs: int) -> None:
    rng = np.random.default_rng(runs)
    repetitions = 250
    verdicts = [judge_target(list(rng.normal(91.42, 0.2, runs)), 91.42).verdict for _ in range(repetitions)]
    for wrong in ("met", "not met"):
        assert verdicts.count(wrong) <= binom.ppf(1 - SURELY, repetitions, LEVEL)
