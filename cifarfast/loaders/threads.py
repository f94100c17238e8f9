"""Taking items from a thread that may stall or die, and ending it when they are no longer wanted."""

import time
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import TypeVar

from cifarfast.patience import polls

T = TypeVar("T")
_POLL_SECONDS = 0.1


class StalledError(Exception):
    """The thread puts nothing into its queue."""


class EndedError(Exception):
    """The thread has ended without saying so by a last item."""


def receive(thread: Thread, queue: "Queue[T]", stall_seconds: float) -> T:
    """The next item that `thread` puts into `queue`.

    Raises:
        StalledError: nothing came for `stall_seconds`, in which this process was running.
        EndedError: nothing will come any more.
    """
    for _ in polls(stall_seconds, _POLL_SECONDS):
        with suppress(Empty):
            return queue.get(timeout=_POLL_SECONDS)
        if not thread.is_alive() and queue.empty():
            raise EndedError
    raise StalledError


def drain(thread: Thread, queue: "Queue[T]", seconds: float) -> bool:
    """Wait for the end of a thread that was told to end; returns whether it did.

    Takes items from `queue`, so that a thread that waits for room in it gets that.
    """
    deadline = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline:
        with suppress(Empty):
            queue.get_nowait()
        thread.join(timeout=0.01)
    return not thread.is_alive()
