import itertools
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from cifarfast.range_test import (
    LrRange,
    Point,
    Sweep,
    longest_fall,
    measure,
    minimum_tenth,
    steepest,
    suggest,
    valley,
)


def test_the_rates() -> None:
    exponential = Sweep(start_lr=1e-5, end_lr=10.0, num_iter=50)
    assert [exponential.lr(i) for i in range(50)] == pytest.approx(np.geomspace(1e-5, 10, 50), rel=1e-12)
    linear = Sweep(start_lr=0.01, end_lr=1.0, num_iter=7, mode="linear")
    assert [linear.lr(i) for i in range(7)] == pytest.approx(np.linspace(0.01, 1, 7), rel=1e-12)
    with pytest.raises(ValueError, match="step must be between 0 and 6, not 7"):
        linear.lr(7)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start_lr": 0.0}, "start_lr must be positive and finite, not 0.0"),
        ({"end_lr": math.inf}, "end_lr must be positive and finite, not inf"),
        ({"start_lr": 0.1, "end_lr": 0.1}, r"end_lr must be above start_lr \(0.1\), not 0.1"),
        ({"num_iter": 1}, "num_iter must be at least 2, not 1"),
        ({"mode": "cubic"}, "mode must be one of exponential, linear, not 'cubic'"),
        ({"smoothing": 0.0}, "smoothing must be positive"),
        ({"smoothing": 1.5}, "smoothing must be between 0.0 and 1.0, not 1.5"),
        ({"divergence": 1.0}, "divergence must be above 1, not 1.0"),
        ({"divergence": math.nan}, "divergence must be positive"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sweep(**settings)  # type: ignore[arg-type]


def curve(loss: Callable[[float], float], *, start: float = 1e-4, end: float = 1.0, steps: int = 81) -> LrRange:
    """A test of a made-up loss, a function of log10 of the learning rate, without smoothing."""
    sweep = Sweep(start_lr=start, end_lr=end, num_iter=steps, smoothing=1.0)
    return measure(lambda lr: loss(math.log10(lr)), sweep)


def playback(losses: Sequence[float], **settings: float) -> LrRange:
    rest = iter(losses)
    return measure(lambda lr: next(rest), Sweep(num_iter=len(losses), **settings))  # type: ignore[arg-type]


def test_smoothing_is_an_exponential_mean_that_starts_at_the_first_loss() -> None:
    losses = np.random.default_rng(1).uniform(1, 2, 30)
    result = playback(losses.tolist(), smoothing=0.05)
    expected, _ = lfilter([0.05], [1, -0.95], losses, zi=[0.95 * losses[0]])
    assert [point.smoothed for point in result.points] == pytest.approx(expected, rel=1e-12)
    assert [point.loss for point in result.points] == losses.tolist()
    assert result.stopped == "end"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_sweep_and_stays_out_of_the_mean(bad: float) -> None:
    falling = [2.0 - 0.1 * i for i in range(12)]
    result, without = playback([*falling, bad, 0.1, 0.1]), playback(falling)
    assert result.stopped == "non-finite"
    assert len(result.points) == 13
    assert (result.points[-1].loss, result.points[-1].smoothed) == (None, None)
    assert [p.smoothed for p in result.points[:-1]] == [p.smoothed for p in without.points]
    assert result.suggestions.steepest.lr is not None
    assert result.suggestions.steepest.lr <= result.points[-2].lr


def test_divergence_ends_the_sweep_and_its_point_suggests_nothing() -> None:
    falling = [2.0 - 0.1 * i for i in range(12)]
    result = playback([*falling, 3.7, 3.8, 0.0], smoothing=1.0)
    assert (result.stopped, len(result.points)) == ("diverged", 13)  # 3.7 is more than 4 times 0.9
    assert playback([*falling, 3.5, 3.65], smoothing=1.0, divergence=4.0).stopped == "diverged"
    assert playback([*falling, 3.5, 3.65], smoothing=1.0, divergence=4.1).stopped == "end"


def test_a_loss_below_zero_has_not_diverged() -> None:
    assert playback([-0.1 * i for i in range(1, 20)]).stopped == "end"
    assert playback([-1.0, -1.0, 2.5], smoothing=1.0).stopped == "diverged"  # a rise by more than 3 times 1.0
    assert playback([-1.0, -1.0, 1.5], smoothing=1.0).stopped == "end"


def test_suggestions_of_a_curve_with_known_places() -> None:
    """Flat, then a logistic fall around 10**-2.5, then a rise from 10**-1 on."""
    result = curve(lambda x: 2.5 - 1 / (1 + math.exp(-6 * (x + 2.5))) + max(0.0, x + 1) * 10)
    assert (result.stopped, result.suggestions.steepest.reason) == ("diverged", None)
    assert result.suggestions.steepest.lr == pytest.approx(10**-2.5)
    assert result.suggestions.minimum_tenth.lr == pytest.approx(0.01)
    assert result.suggestions.valley.lr == pytest.approx(10**-2.5)  # falls from 10**-4 to 10**-1


def test_steepest_is_per_log_learning_rate() -> None:
    lrs = np.linspace(0.001, 1, 400)
    losses = -np.log(lrs) + np.exp(-(((np.log(lrs) + 4) / 0.5) ** 2))  # steepest just above exp(-4)
    fine = np.linspace(-6.9, 0, 100_001)
    slope = -1 - 8 * (fine + 4) * np.exp(-(((fine + 4) / 0.5) ** 2))
    assert steepest(lrs.tolist(), losses.tolist()) == pytest.approx(math.exp(fine[slope.argmin()]), abs=0.0026)


def test_steepest_is_not_in_the_fall_back_after_a_spike() -> None:
    losses = [2.0, 1.9, 1.7, 1.3, 1.2, 1.1, 3.9, 3.0, 1.3]
    assert steepest([10.0**i for i in range(9)], losses) == 10.0**2
    assert minimum_tenth([10.0**i for i in range(9)], losses) == 10.0**4


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_longest_fall(losses: list[int]) -> None:
    fall = longest_fall(losses)
    assert all(i < j and losses[i] > losses[j] for i, j in itertools.pairwise(fall))
    longest = max(
        len(chosen)
        for size in range(1, len(losses) + 1)
        for chosen in itertools.combinations(losses, size)
        if all(a > b for a, b in itertools.pairwise(chosen))
    )
    assert len(fall) == longest


def test_a_bump_does_not_end_the_valley() -> None:
    assert valley([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [5.0, 6.0, 4.0, 4.5, 3.0, 2.0, 9.0]) == 4.0


def reason(result: LrRange) -> str:
    suggestions = result.suggestions
    (only,) = {suggestions.steepest, suggestions.minimum_tenth, suggestions.valley}
    assert only.lr is None
    assert only.reason is not None
    return only.reason


def test_no_suggestion_without_a_fall() -> None:
    assert "falls by 0, no more than" in reason(curve(lambda x: 2.0))
    assert "falls by 0, no more than" in reason(curve(lambda x: 2.0 + x / 100))
    assert "only 4 usable losses, 5 are needed" in reason(playback([2.0, 1.9, 1.8, 1.7, math.nan]))
    assert "only 0 usable losses" in reason(playback([math.nan, 1.0]))


@pytest.mark.parametrize("smoothing", [0.5, 0.2])
def test_no_steepest_nor_valley_where_the_loss_falls_fastest_from_the_first_rate_on(smoothing: float) -> None:
    """A logistic fall whose middle is just within or just beyond the first 1 / smoothing rates."""
    remembered = round(1 / smoothing)
    for middle, seen in ((0, False), (remembered - 1, False), (remembered, True), (remembered + 20, True)):
        losses = [3 - 2 / (1 + math.exp(middle - step)) for step in range(60)]
        points = [Point(lr=1e-4 * 1.1**step, loss=loss, smoothed=loss) for step, loss in enumerate(losses)]
        suggestions = suggest(points, complete=True, smoothing=smoothing)
        if seen:
            assert suggestions.steepest.lr == pytest.approx(1e-4 * 1.1**middle)
            assert suggestions.valley.lr is not None
        else:
            assert suggestions.steepest == suggestions.valley
            assert suggestions.steepest.lr is None
            assert suggestions.steepest.reason == (
                "the loss falls fastest at the first rates, from 0.0001 on: start at a lower one"
            )


def test_noise_is_not_taken_for_a_fall() -> None:
    draws = random.Random(5)
    results = [playback([draws.gauss(2.3, 0.1) for _ in range(48)]) for _ in range(200)]
    assert sum(result.suggestions.steepest.lr is not None for result in results) <= 10
    noisy = playback([2.3 - i / 48 + draws.gauss(0, 0.1) for i in range(48)])
    assert noisy.suggestions.steepest.lr is not None


def test_no_tenth_of_a_minimum_that_is_none_or_lies_outside() -> None:
    still_falling = curve(lambda x: 2.0 - 10**x)
    assert (
        still_falling.suggestions.minimum_tenth.reason == "the loss is lowest at the last rate (1): end at a higher one"
    )
    assert still_falling.suggestions.steepest.lr is not None
    early = curve(lambda x: abs(x + 3.5) + 1)
    assert early.suggestions.minimum_tenth.reason == (
        "3.16e-05 lies below the first rate (0.0001): start at a lower one"
    )
