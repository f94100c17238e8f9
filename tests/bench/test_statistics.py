import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, t

from bench.statistics import holm, quartiles, rank_tests, speed_ratio, t_tests
from tests.bench.noise import timings


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=20))
def test_quartiles(values: list[float]) -> None:
    found = quartiles(values)
    assert [found.low, found.median, found.high] == pytest.approx(statistics.quantiles(values, method="inclusive"))
    assert found.n == len(values)


@pytest.mark.parametrize(("wide", "noisy"), [(1.09, False), (1.11, True)])
def test_a_middle_half_of_more_than_a_tenth_is_noisy(wide: float, noisy: bool) -> None:
    assert quartiles([1.0, 1.0, 1.0, wide, wide]).noisy == noisy


def test_the_ratio_says_how_many_times_faster() -> None:
    found = speed_ratio([1.0, 1.1, 0.9], [3.0, 3.2, 3.1], paired=False)
    assert found.value == pytest.approx(3.1)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_is_that_of_all_resamples(paired: bool) -> None:
    """Of so few rounds, all ways to draw them again can be gone through."""
    seconds, baseline = [1.0, 1.2, 1.3, 1.7], [2.0, 2.3, 2.1, 2.9]
    rounds = list(itertools.product(range(4), repeat=4))
    drawn = zip(rounds, rounds, strict=True) if paired else itertools.product(rounds, rounds)
    ratios = [_median(baseline, b) / _median(seconds, a) for a, b in drawn]
    found = speed_ratio(seconds, baseline, paired=paired)
    assert [found.low, found.high] == pytest.approx(np.quantile(ratios, (0.025, 0.975)).tolist(), rel=0.02)


def _median(values: Sequence[float], chosen: Sequence[int]) -> float:
    return statistics.median(values[i] for i in chosen)


def test_pairs_take_away_what_disturbs_both() -> None:
    rng = np.random.default_rng(2)
    common = rng.uniform(1, 2, 20)
    ours, theirs = (list(seconds * common * rng.lognormal(0, 0.01, 20)) for seconds in (1.0, 1.5))
    paired, unpaired = (speed_ratio(ours, theirs, paired=paired) for paired in (True, False))
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_the_same_rounds_give_the_same_interval() -> None:
    rounds = list(timings(np.random.default_rng(0), 2, 10))
    assert speed_ratio(*rounds, paired=False) == speed_ratio(*rounds, paired=False)


def test_a_single_round_has_no_spread() -> None:
    found = speed_ratio([2.0], [3.0], paired=True)
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_pairs_are_equally_many() -> None:
    with pytest.raises(ValueError, match="2 and 3 rounds are not pairs"):
        speed_ratio([1.0, 2.0], [1.0, 2.0, 3.0], paired=True)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("rounds", "at_least", "at_most"), [(2, 0.45, 0.75), (5, 0.93, 1.0), (10, 0.93, 1.0)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(
    paired: bool, rounds: int, at_least: float, at_most: float
) -> None:
    """Noise as of a shared machine; paired rounds have slow ones in common. The bounds allow for three deviations."""
    simulations = 200
    rng = np.random.default_rng(rounds)
    common = timings(rng, simulations, rounds) if paired else np.ones((simulations, rounds))
    ours, theirs = (timings(rng, simulations, rounds) * common for _ in range(2))
    found = [speed_ratio(list(a), list(b), paired=paired) for a, b in zip(ours, 1.5 * theirs, strict=True)]
    covered = np.mean([interval.low <= 1.5 <= interval.high for interval in found])
    deviation = 3 * np.sqrt(at_least * (1 - at_least) / simulations)
    assert at_least - deviation <= covered <= at_most


def _by_counting(x: Sequence[float], y: Sequence[float]) -> float:
    """p of a rank test, from its definition: among all ways to deal the figures, those with as many x above y."""

    def above(x: Sequence[float], y: Sequence[float]) -> int:
        return sum(a > b for a in x for b in y)

    together = [*x, *y]
    deals = [
        ([together[i] for i in chosen], [together[i] for i in range(len(together)) if i not in chosen])
        for chosen in itertools.combinations(range(len(together)), len(x))
    ]
    return sum(above(*deal) >= above(x, y) for deal in deals) / len(deals)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.04, 1.2])
@pytest.mark.parametrize("minimum_effect", [0.0, 0.03])
def test_rank_tests_count_orders(factor: float, minimum_effect: float) -> None:
    rng = np.random.default_rng(4)
    before, after = rng.lognormal(0, 0.03, 4), factor * rng.lognormal(0, 0.03, 5)
    slower, faster = rank_tests(before, after, minimum_effect=minimum_effect)
    scale = 1 + minimum_effect
    assert slower == pytest.approx(_by_counting(list(after), list(before * scale)))
    assert faster == pytest.approx(_by_counting(list(before), list(after * scale)))


def test_rank_tests_of_many_benchmarks_at_once() -> None:
    before, after = timings(np.random.default_rng(5), 2, 3, 4, 10)
    slower, faster = rank_tests(before, after, minimum_effect=0.01)
    assert slower.shape == faster.shape == (3, 4)
    assert (slower[1, 2], faster[1, 2]) == rank_tests(before[1, 2], after[1, 2], minimum_effect=0.01)


def test_many_rounds_are_judged_by_the_normal_distribution() -> None:
    before, after = timings(np.random.default_rng(6), 2, 60)
    slower, _ = rank_tests(before, 1.01 * after, minimum_effect=0.0)
    exact = mannwhitneyu(1.01 * after, before, alternative="greater", method="exact").pvalue
    assert slower != exact
    assert slower == pytest.approx(exact, rel=0.01)


def test_ties_are_no_difference() -> None:
    assert rank_tests([1.0] * 8, [1.0] * 8, minimum_effect=0.0) == (1.0, 1.0)
    slower, faster = rank_tests([1.0] * 8, [2.0] * 8, minimum_effect=0.0)
    assert slower < 0.001 < faster


def test_t_tests_are_welchs_on_logarithms() -> None:
    before, after = timings(np.random.default_rng(7), 2, 6)
    slower, faster = t_tests(before, 1.2 * after, minimum_effect=0.03)
    a, b = ([math.log(x) for x in values] for values in (before, 1.2 * after))
    variances = [statistics.variance(values) / 6 for values in (a, b)]
    difference, error = statistics.fmean(b) - statistics.fmean(a), math.sqrt(sum(variances))
    freedom = error**4 / sum(variance**2 / 5 for variance in variances)
    assert slower == pytest.approx(t.sf((difference - math.log(1.03)) / error, freedom))
    assert faster == pytest.approx(t.sf((-difference - math.log(1.03)) / error, freedom))


def test_t_tests_without_any_spread() -> None:
    assert t_tests([1.0] * 3, [1.0] * 3, minimum_effect=0.0) == (1.0, 1.0)
    assert t_tests([1.0] * 3, [2.0] * 3, minimum_effect=0.03) == (0.0, 1.0)
    assert t_tests([1.0] * 3, [2.0, 2.0, 2.1], minimum_effect=0.03)[0] < 0.001


def _step_down(p: Sequence[float], level: float) -> list[bool]:
    """Holm's procedure as he wrote it: reject the smallest while it is below the level over what is left."""
    rejected = [False] * len(p)
    for step, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[number] * (len(p) - step) > level:
            break
        rejected[number] = True
    return rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_his_procedure_rejects(p: list[float], level: float) -> None:
    adjusted = holm(p)
    assert [bool(a <= level) for a in adjusted] == _step_down(p, level)
    assert ((np.asarray(p) <= adjusted) & (adjusted <= 1)).all()


def test_holm_of_an_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([[0.01, 0.2], [0.6, 0.9]]) == pytest.approx(np.array([[0.02, 0.2], [1.0, 1.0]]))
