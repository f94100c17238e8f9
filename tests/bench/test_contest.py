import gc
from collections.abc import Callable
from itertools import pairwise

import pytest

from bench.contest import MIN_ROUND_SECONDS, Entrant, Timing, compete


class Clock:
    """Time that only passes when a variant works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.contest.time.perf_counter", clock)
    return clock


def nothing() -> None:
    pass


def timing(outcome: Timing | Exception) -> Timing:
    assert isinstance(outcome, Timing), outcome
    return outcome


def working(clock: Clock, seconds: float, log: list[str], name: str) -> Callable[[], None]:
    def once() -> None:
        clock.now += seconds
        log.append(name)

    return once


def test_rounds_are_interleaved_and_each_variant_comes_first_in_turn(clock: Clock) -> None:
    log: list[str] = []
    entrants = {name: Entrant(once=working(clock, 1.0, log, name), warm_up=0) for name in "abc"}
    compete(entrants, rounds=4, synchronize=nothing)
    assert "".join(log) == "abc" + "bca" + "cab" + "abc"


def test_the_seconds_of_a_round_are_those_of_its_own_calls(clock: Clock) -> None:
    log: list[str] = []
    entrants = {name: Entrant(once=working(clock, s, log, name)) for name, s in {"slow": 3.0, "fast": 0.5}.items()}
    outcomes = compete(entrants, rounds=5, synchronize=nothing)
    assert timing(outcomes["slow"]).seconds == pytest.approx([3.0] * 5)
    assert timing(outcomes["fast"]).seconds == pytest.approx([0.5] * 5)


def test_the_first_call_is_told_apart_and_the_warm_up_is_in_no_round(clock: Clock) -> None:
    durations = iter([20.0, 5.0, 1.0, 1.0, 1.0])

    def once() -> None:
        clock.now += next(durations)

    outcome = timing(compete({"compiled": Entrant(once=once, warm_up=2)}, rounds=3, synchronize=nothing)["compiled"])
    assert outcome.first_seconds == 20.0
    assert outcome.seconds == pytest.approx([1.0, 1.0, 1.0])
    assert outcome.calls_per_round == 1


def test_a_round_of_something_short_is_many_calls(clock: Clock) -> None:
    log: list[str] = []
    outcome = timing(
        compete({"short": Entrant(once=working(clock, 0.001, log, "."))}, rounds=2, synchronize=nothing)["short"]
    )
    assert outcome.calls_per_round * 0.001 >= MIN_ROUND_SECONDS
    assert outcome.seconds == pytest.approx([0.001, 0.001])
    assert len(log) == 3 + 2 * outcome.calls_per_round


def test_the_device_is_waited_for_within_the_measurement(clock: Clock) -> None:
    queued: list[float] = []

    def synchronize() -> None:
        clock.now += sum(queued)
        queued.clear()

    entrants = {"queues": Entrant(once=lambda: queued.append(2.0), warm_up=1)}
    assert timing(compete(entrants, rounds=2, synchronize=synchronize)["queues"]).seconds == [2.0, 2.0]


def test_seconds_of_productions_own_stopwatch_count(clock: Clock) -> None:
    def once() -> float:
        clock.now += 9.0
        return 4.0

    assert timing(compete({"epoch": Entrant(once=once)}, rounds=2, synchronize=nothing)["epoch"]).seconds == [4.0, 4.0]


@pytest.mark.parametrize("good_calls", [0, 4])
def test_a_variant_that_fails_drops_out_and_the_others_go_on(clock: Clock, good_calls: int) -> None:
    calls = 0

    def failing() -> None:
        nonlocal calls
        clock.now += 1.0
        calls += 1
        if calls > good_calls:
            raise ValueError("no such kernel")

    closed: list[str] = []
    entrants = {
        "bad": Entrant(once=failing, close=lambda: closed.append("bad")),
        "good": Entrant(once=working(clock, 1.0, [], "good"), close=lambda: closed.append("good")),
    }
    outcomes = compete(entrants, rounds=5, synchronize=nothing)
    assert isinstance(outcomes["bad"], ValueError)
    assert timing(outcomes["good"]).seconds == [1.0] * 5
    assert calls == good_calls + 1
    assert closed == ["bad", "good"]


def test_the_garbage_collector_is_held_off_and_comes_back(clock: Clock) -> None:
    seen = []

    def once() -> None:
        clock.now += 1.0
        seen.append(gc.isenabled())

    assert gc.isenabled()
    compete({"one": Entrant(once=once)}, rounds=2, synchronize=nothing)
    assert not any(seen)
    assert gc.isenabled()


def test_interleaving_spreads_a_slow_spell_over_all_variants(clock: Clock) -> None:
    """What two runs one after the other would call a difference of two, interleaved rounds call none."""

    def once() -> None:
        clock.now += 1.0 if clock.now < 40 else 2.0  # the neighbours wake up

    outcomes = compete({name: Entrant(once=once) for name in ("a", "b")}, rounds=30, synchronize=nothing)
    pairs = zip(timing(outcomes["a"]).seconds, timing(outcomes["b"]).seconds, strict=True)
    assert sum(a != b for a, b in pairs) <= 1
    assert all(before <= after for before, after in pairwise(timing(outcomes["a"]).seconds))
