import pytest

from bench.reporting.estimate import Estimate, compared
from bench.statistics import speed_ratio

UNSURE = Estimate(value=2.0, low=None, high=None)


def test_a_comparison_is_that_of_the_statistics() -> None:
    fast, slow = [1.0, 1.1, 0.9, 1.05, 1.2], [2.0, 2.3, 1.9, 2.2, 2.1]
    for paired in (True, False):
        found, expected = compared(fast, slow, paired=paired), speed_ratio(fast, slow, paired=paired)
        assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert compared(fast, slow[:4], paired=True).value == pytest.approx(2.0)


def test_a_single_round_knows_nothing_of_its_spread() -> None:
    assert compared([1.0], [2.0], paired=True) == UNSURE
    assert compared([1.0, 1.0, 1.0], [2.0], paired=False) == UNSURE


def test_above_and_below_are_of_the_whole_interval() -> None:
    found = Estimate(value=2.0, low=1.0, high=3.0)
    assert (found.above(0.9), found.above(1.0), found.below(3.1), found.below(3.0)) == (True, False, True, False)
    assert not UNSURE.above(0)
    assert not UNSURE.below(9)


def test_a_falling_function_turns_the_interval() -> None:
    found = Estimate(value=2.0, low=1.0, high=4.0)
    assert found.map(lambda x: 1 / x) == Estimate(value=0.5, low=0.25, high=1.0)
    assert found.map(lambda x: 2 * x) == Estimate(value=4.0, low=2.0, high=8.0)
    assert UNSURE.map(lambda x: -x) == Estimate(value=-2.0, low=None, high=None)
