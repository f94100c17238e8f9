from pathlib import Path
from typing import Any

import pytest

from bench.records import read_bench
from bench.reporting.compiling import Compiling, find_compiling
from tests.bench.made import entry, write_bench


def compiling(folder: Path, entries: list[dict[str, Any]]) -> Compiling:
    return find_compiling([read_bench(write_bench(folder / "a.json", entries))])


def step(mode: str, rate: float, *, layout: str = "channels-last", **facts: Any) -> dict[str, Any]:
    return entry("step", f"fp32-{layout}-{mode}", rate, precision="fp32", layout=layout, mode=mode, **facts)


def test_gain_and_cost(tmp_path: Path) -> None:
    found = compiling(tmp_path, [step("eager", 100), step("compiled", 125, compile_seconds=50.0, compile_cache="cold")])
    (gain,) = found.gains
    eager_epoch = gain.epoch_seconds
    assert eager_epoch == pytest.approx(500, rel=0.01)
    assert (gain.ratio.value, gain.ratio.low, gain.ratio.high) == pytest.approx((1.25, 1.25, 1.25))  # pairs
    assert gain.gain_seconds.value == pytest.approx(eager_epoch - eager_epoch / 1.25)
    assert (gain.compile_seconds, gain.cache, gain.verdict) == (50.0, "cold", "pays")
    assert gain.pays_after is not None
    assert gain.pays_after.value == pytest.approx(50 / (eager_epoch / 5))
    assert found.production == gain


def test_the_interval_of_the_gain_is_that_of_the_ratio(tmp_path: Path) -> None:
    compiled = step("compiled", 125, compile_seconds=50.0, rounds=9, spread=0.1)
    (gain,) = compiling(tmp_path, [step("eager", 100), compiled]).gains
    epoch = gain.epoch_seconds
    assert gain.ratio.above(1.1)
    assert not gain.ratio.above(1.24)
    for at in ("low", "value", "high"):
        assert getattr(gain.gain_seconds, at) == pytest.approx(epoch * (1 - 1 / getattr(gain.ratio, at)))
    for at, other in (("low", "high"), ("value", "value"), ("high", "low")):
        assert getattr(gain.pays_after, at) == pytest.approx(50 / getattr(gain.gain_seconds, other))


@pytest.mark.parametrize(("rate", "spread", "verdict"), [(90.0, 0.01, "slower"), (101.0, 0.2, "no gain shown")])
def test_what_does_not_pay(tmp_path: Path, rate: float, spread: float, verdict: str) -> None:
    compiled = step("compiled", rate, compile_seconds=50.0, rounds=9, spread=spread)
    (gain,) = compiling(tmp_path, [step("eager", 100), compiled]).gains
    assert (gain.verdict, gain.pays_after) == (verdict, None)


def test_an_unknown_cost_is_not_zero(tmp_path: Path) -> None:
    for cost in (None, 0, -5, "little"):
        (gain,) = compiling(tmp_path, [step("eager", 100), step("compiled", 125, compile_seconds=cost)]).gains
        assert (gain.verdict, gain.compile_seconds, gain.pays_after) == ("pays", None, None)


def test_only_the_same_precision_and_layout_are_compared(tmp_path: Path) -> None:
    found = compiling(tmp_path, [step("eager", 100, layout="contiguous"), step("compiled", 125)])
    assert (found.gains, found.production, found.start_up) == ([], None, [])


def start_up(name: str, seconds: float) -> dict[str, Any]:
    return entry("start-up", name, 1 / seconds, work=1, unit=None, rounds=1)


def test_one_round_shows_no_gain(tmp_path: Path) -> None:
    (gain,) = compiling(tmp_path, [step("eager", 100, rounds=1), step("compiled", 200, rounds=1)]).gains
    assert (gain.ratio.value, gain.ratio.low, gain.ratio.high, gain.verdict) == (2.0, None, None, "no gain shown")


def test_what_start_up_costs_is_held_against_the_gain_of_what_training_compiles(tmp_path: Path) -> None:
    begun = [start_up("compiled-cold", 110.0), start_up("eager", 10.0), start_up("compiled-warm", 30.0)]
    steps = [step("eager", 100), step("compiled", 125), step("eager", 100, layout="contiguous")]
    found = compiling(tmp_path, [*begun, *steps, step("compiled", 300, layout="contiguous")])
    cold, eager, warm = found.start_up
    assert (eager.extra_seconds, eager.pays_after) == (None, None)
    assert cold.extra_seconds == pytest.approx(100)
    assert warm.extra_seconds == pytest.approx(20)
    assert cold.pays_after is not None
    assert warm.pays_after is not None
    assert cold.pays_after.value == pytest.approx(1.0, rel=0.01)
    assert warm.pays_after.value == pytest.approx(0.2, rel=0.01)
    (cold, _, _) = compiling(tmp_path, begun).start_up
    assert cold.extra_seconds == pytest.approx(100)
    assert cold.pays_after is None
    (cold,) = compiling(tmp_path, begun[:1]).start_up
    assert cold.extra_seconds is None
