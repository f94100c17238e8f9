"""Variants of the same work, timed against one another: round after round, some calls of each in turn.

What disturbs a shared machine for a while then disturbs all variants alike, which is why a difference is only ever
called one between figures of one contest; a ratio across contests, of a loader over the step, is coarser.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MIN_ROUND_SECONDS = 0.05
"""A round of something shorter is several calls: the clock and the scheduler should not show."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One variant, ready to run."""

    once: Callable[[], float | None]
    """Does the work once; returns the seconds that count where production's own stopwatch says them."""
    work: float = 1
    """How much of `unit` one call does."""
    unit: str | None = "images"
    """images, FLOP or bytes; None where only the time matters."""
    warm_up: int = 3
    """Calls before the first round, the very first, which compiles, included."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else a reader should know, as JSON; the same object is read again after the last round."""
    close: Callable[[], None] = _nothing
    """Called when all is over."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the stopwatch said of one variant."""

    seconds: list[float]
    """Of one call (the mean over the calls of a round), in the order of the rounds."""
    calls_per_round: int
    """Calls that a round is made of."""
    first_seconds: float | None
    """The very first call, that of the warm-up, compilation included; None without a warm-up."""


def compete(
    entrants: Mapping[str, Entrant], *, rounds: int, synchronize: Callable[[], None]
) -> dict[str, Timing | Exception]:
    """Warm every variant up, then time `rounds` rounds of all.

    Each round starts with another variant, so that none always comes first. The garbage collector is off.

    Args:
        synchronize: waits for the device.

    Returns:
        For each name what was measured, or why it dropped out: then it runs no further, and the others do.
    """
    outcomes: dict[str, Timing | Exception] = {}
    try:
        with _no_garbage_collection():
            calls = {}
            for name, entrant in entrants.items():
                try:
                    calls[name], first = _warm_up(entrant, synchronize)
                    outcomes[name] = Timing(seconds=[], calls_per_round=calls[name], first_seconds=first)
                except Exception as error:  # noqa: BLE001, told where the variant's result is asked for
                    outcomes[name] = error
            for number in range(rounds):
                running = [name for name in entrants if isinstance(outcomes[name], Timing)]
                for name in _turned(running, number):
                    try:
                        seconds = _time(entrants[name], calls[name], synchronize)
                        timing = outcomes[name]
                        assert isinstance(timing, Timing)
                        timing.seconds.append(seconds)
                    except Exception as error:  # noqa: BLE001, as above
                        outcomes[name] = error
    finally:
        for entrant in entrants.values():
            entrant.close()
    return outcomes


def _warm_up(entrant: Entrant, synchronize: Callable[[], None]) -> tuple[int, float | None]:
    seconds = [_time(entrant, 1, synchronize) for _ in range(entrant.warm_up)]
    if not seconds:
        return 1, None
    return max(1, math.ceil(MIN_ROUND_SECONDS / max(seconds[-1], 1e-6))), seconds[0]


def _time(entrant: Entrant, calls: int, synchronize: Callable[[], None]) -> float:
    """Seconds of one call."""
    own = []
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        seconds = entrant.once()
        if seconds is not None:
            own.append(seconds)
    synchronize()
    return sum(own) / calls if own else (time.perf_counter() - start) / calls


def _turned(names: list[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return names[by:] + names[:by]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
