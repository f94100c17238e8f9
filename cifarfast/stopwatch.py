"""What is timed is decided here: named spans of wall-clock seconds, and nothing else synchronises.

An epoch is the span `train`: from asking the loader for the first batch until the device has finished
the last step, without the `checkpoint`s written in between. `data` is the part of it that the host spent
waiting for batches.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds spent, summed by the name of the span."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._running: dict[str, float] = {}

    @contextmanager
    def span(self, name: str, *, out_of: str | None = None) -> Iterator[None]:
        """Time a block from an idle device to an idle device; it does not count to the span `out_of` around it."""
        self._synchronize()
        start = self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            seconds = time.perf_counter() - start
            del self._running[name]
            self._seconds[name] += seconds
            if out_of is not None:
                self._seconds[out_of] -= seconds

    def waiting(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """Pass the items on, timing how long each `next` keeps the host waiting (no synchronisation)."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._seconds[name] += time.perf_counter() - start
            yield item

    def take(self, name: str) -> float:
        """The seconds of a span since it was last taken."""
        return self._seconds.pop(name, 0.0)

    def read(self) -> dict[str, float]:
        """The seconds of all spans since they were last taken, those under way included."""
        now = time.perf_counter()
        running = {name: now - start for name, start in self._running.items()}
        return {name: self._seconds[name] + running.get(name, 0.0) for name in {**self._seconds, **running}}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count seconds that were spent elsewhere."""
        for name, spent in seconds.items():
            self._seconds[name] += spent
