"""Progress for a person at a terminal (a bar) and for a log (a line now and then), both on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

from cifarfast.door import note

_LINE_SECONDS = 10.0


@contextmanager
def stage(what: str, *, total: int, done: int = 0, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Show the progress of one stage of work; yields a function to call with the amount just done.

    Args:
        what: what is being done, such as `reading data.tar.gz`.
        total: amount of work.
        done: how much of it was done before.
        in_bytes: whether the amounts are bytes.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        amount: ProgressColumn = DownloadColumn() if in_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeLeftColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda amount: bar.advance(task, amount)
    else:
        note(what)
        yield _Lines(what, total, done)


class _Lines:
    """A line with the percentage every ten seconds."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._next = time.monotonic() + _LINE_SECONDS

    def __call__(self, amount: int) -> None:
        self._done += amount
        if time.monotonic() >= self._next:
            note(f"{self._what}: {min(100, 100 * self._done // self._total)}%")
            self._next = time.monotonic() + _LINE_SECONDS
