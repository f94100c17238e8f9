"""What is timed is decided here: named spans of wall-clock seconds, and nothing else synchronises.

An epoch is the span `train`: from asking the loader for the first batch until the device has finished
the last step. `data` is the part of it that the host spent waiting for batches.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds spent, summed by the name of the span."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a block from an idle device to an idle device."""
        self._synchronize()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            self._seconds[name] += time.perf_counter() - start

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
