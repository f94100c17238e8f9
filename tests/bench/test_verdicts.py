"""What the verdicts are worth: how often they are wrong, and what they find, by simulation."""

import itertools
from collections.abc import Sequence
from typing import Any, cast, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from bench.verdicts import (
    LEVEL,
    MINIMUM_EFFECT,
    Speed,
    change_tests,
    in_short,
    judge_speed,
    verdicts_of,
)
from cifarfast.accuracy import Accuracy
from tests.bench.noise import timings

FILES = 300
BENCHMARKS = 60
SURELY = 1e-4
"""Probability at which a simulation that is as it should be would fail."""


def simulated(
    rounds: int,
    factors: float | Sequence[float],
    *,
    benchmarks: int,
    minimum_effect: float = MINIMUM_EFFECT,
    **noise: Any,
) -> NDArray[np.str_]:
    """Verdicts (FILES, benchmarks) on files whose benchmarks take `factors` times as long the second time."""
    rng = np.random.default_rng([rounds, benchmarks])
    before, after = (timings(rng, FILES, benchmarks, rounds, **noise) for _ in range(2))
    after *= np.broadcast_to(factors, benchmarks)[:, None]
    _, slower, faster = change_tests(before, after, benchmarks=benchmarks, minimum_effect=minimum_effect)
    return verdicts_of(slower, faster)[1]


def alarms(verdicts: NDArray[np.str_]) -> int:
    """Files with a verdict that something changed."""
    return int((verdicts != "no difference shown").any(axis=1).sum())


def assert_rate(count: int, rate: float) -> None:
    """The rate is that of the docstring, where it is rounded to a percent."""
    low, high = binom.ppf([SURELY, 1 - SURELY], FILES, [max(0.0, rate - 0.01), min(1.0, rate + 0.01)])
    assert low <= count <= high, (count / FILES, rate)


@pytest.mark.parametrize(
    ("rounds", "slow_down", "alone", "among_others"),
    [
        (5, 0.05, 0.07, 0.00),
        (5, 0.10, 0.45, 0.04),
        (5, 0.20, 0.63, 0.31),
        (5, 0.50, 0.87, 0.50),
        (10, 0.05, 0.16, 0.01),
        (10, 0.10, 0.84, 0.29),
        (10, 0.20, 0.96, 0.48),
        (10, 0.50, 1.00, 0.86),
        (20, 0.05, 0.35, 0.03),
        (20, 0.10, 0.99, 0.81),
        (20, 0.20, 1.00, 0.98),
        (40, 0.05, 0.60, 0.12),
    ],
)
def test_slow_downs_are_found_as_often_as_it_says(
    rounds: int, slow_down: float, alone: float, among_others: float
) -> None:
    single = simulated(rounds, 1 + slow_down, benchmarks=1)
    assert_rate(int((single[:, 0] == "slower").sum()), alone)
    many = simulated(rounds, [1 + slow_down] + [1.0] * (BENCHMARKS - 1), benchmarks=BENCHMARKS)
    assert_rate(int((many[:, 0] == "slower").sum()), among_others)
    assert alarms(many[:, 1:]) <= binom.ppf(1 - SURELY, FILES, LEVEL)


@pytest.mark.parametrize(("rounds", "alone", "among_others"), [(10, 0.52, 0.07), (40, 0.99, 0.80)])
def test_a_smaller_minimum_effect_finds_smaller_slow_downs(rounds: int, alone: float, among_others: float) -> None:
    for benchmarks, rate in ((1, alone), (BENCHMARKS, among_others)):
        factors = [1.05] + [1.0] * (benchmarks - 1)
        found = simulated(rounds, factors, benchmarks=benchmarks, minimum_effect=0.01)
        assert_rate(int((found[:, 0] == "slower").sum()), rate)


@pytest.mark.parametrize(("rounds", "rate"), [(5, 0.88), (10, 1.00)])
def test_a_quiet_machine_finds_them_in_few_rounds(rounds: int, rate: float) -> None:
    found = simulated(rounds, [1.2] + [1.0] * (BENCHMARKS - 1), benchmarks=BENCHMARKS, slow=0.0)
    assert_rate(int((found[:, 0] == "slower").sum()), rate)


def test_speed_ups_are_found_as_often_as_slow_downs() -> None:
    slower, faster = (simulated(20, factor, benchmarks=1) for factor in (1.1, 1 / 1.1))
    assert_rate(int((slower == "slower").sum()), 0.99)
    assert_rate(int((faster == "faster").sum()), 0.99)


@pytest.mark.parametrize("rounds", [5, 7, 20])
@pytest.mark.parametrize(("drift", "at_most"), [(1.0, 0.01), (1.02, 0.01), (1.03, LEVEL), (1 / 1.03, LEVEL)])
def test_a_rerun_raises_an_alarm_at_most_as_often_as_the_level(rounds: int, drift: float, at_most: float) -> None:
    count = alarms(simulated(rounds, drift, benchmarks=BENCHMARKS))
    assert count <= binom.ppf(1 - SURELY, FILES, at_most), count / FILES


@pytest.mark.parametrize("benchmarks", [1, BENCHMARKS])
def test_without_a_minimum_effect_too(benchmarks: int) -> None:
    count = alarms(simulated(20, 1.0, benchmarks=benchmarks, minimum_effect=0.0))
    assert count <= binom.ppf(1 - SURELY, FILES, LEVEL), count / FILES
    assert count >= binom.ppf(SURELY, FILES, 0.03), "so seldom that the test could be sharper"


@pytest.mark.parametrize(("rounds", "rate"), [(10, 0.64), (20, 0.35), (40, 0.11)])
def test_spells_of_slow_rounds_raise_false_alarms_as_often_as_it_admits(rounds: int, rate: float) -> None:
    assert alarms(simulated(rounds, 1.0, benchmarks=BENCHMARKS, spell=4)) / FILES == pytest.approx(rate, abs=0.08)


@pytest.mark.parametrize("minimum_effect", [0.0, MINIMUM_EFFECT])
@pytest.mark.parametrize("spread", [0.0, 0.03, 1.0])
def test_a_file_compared_with_itself_never_alarms(minimum_effect: float, spread: float) -> None:
    rounds = timings(np.random.default_rng(1), 5, 10, spread=spread)
    found = judge_speed([(list(each), list(each)) for each in rounds], minimum_effect=minimum_effect)
    assert {each.verdict for each in found} == {"no difference shown"}
    assert {each.ratio.value for each in found} == {1.0}


def test_all_benchmarks_of_a_file_are_judged_together() -> None:
    rng = np.random.default_rng(3)
    factors = [1.0, 1.1, 1 / 1.3, 1.0, 1.2]
    pairs = [(list(timings(rng, 30, slow=0)), list(factor * timings(rng, 30, slow=0))) for factor in factors]
    found = judge_speed(pairs)
    assert [each.verdict for each in found] == [
        "no difference shown", "slower", "faster", "no difference shown", "slower"
    ]  # fmt: skip
    assert [each.ratio.value for each in found] == pytest.approx([1 / factor for factor in factors], rel=0.03)
    assert all(each.ratio.low < 1 / factor < each.ratio.high for each, factor in zip(found, factors, strict=True))
    (alone,) = judge_speed(pairs[1:2])
    assert alone.p < found[1].p
    assert {type(value) for each in found for value in (each.p, each.verdict)} == {float, str}


@pytest.mark.parametrize(
    ("rounds", "benchmarks", "test"),
    [(1, 1, "none"), (2, 1, "t"), (3, 1, "t"), (4, 1, "ranks"), (5, 6, "ranks"), (5, 7, "t"), (7, 60, "ranks")],
)
def test_the_test_fits_the_rounds(rounds: int, benchmarks: int, test: str) -> None:
    same, far = [1.0 + 0.001 * i for i in range(rounds)], [9.0 + 0.001 * i for i in range(rounds)]
    found = judge_speed([(same, far), *[(same, same)] * (benchmarks - 1)])[0]
    assert found.test == test
    assert found.verdict == ("too few to tell" if test == "none" else "slower")


def test_a_speed_up_that_costs_accuracy_is_called_that() -> None:
    speeds, accuracies = cast(tuple[Speed, ...], get_args(Speed)), cast(tuple[Accuracy, ...], get_args(Accuracy))
    said = {pair: in_short(*pair) for pair in itertools.product(speeds, accuracies)}
    assert said["faster", "inferior"] == "a speed-up that costs accuracy"
    assert [pair for pair, words in said.items() if "costs" in words] == [("faster", "inferior")]
    assert [pair for pair, words in said.items() if "speed-up" in words] == [("faster", each) for each in accuracies]
    assert said["slower", "inferior"] == "speed: slower; accuracy: inferior"
    assert len(set(said.values())) == len(said)
