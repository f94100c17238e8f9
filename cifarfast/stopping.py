"""SIGINT and SIGTERM as a request: the run stops where nothing is lost. A second signal leaves at once."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TypeVar

from cifarfast.door import ask_to_leave, leave_if_asked, note
from cifarfast.errors import Stopped

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context in which a signal only sets `requested`; the handlers from before come back at its end.

    A thread hears of signals at once, through the pipe into which Python's own handler writes, while the
    main thread may be inside one operation of torch for seconds. A signal that is ignored (a job in the
    background ignores SIGINT) stays ignored. Outside the main thread, which alone may have handlers, the
    context does nothing.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._heeded = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        leave_if_asked()
        if threading.current_thread() is threading.main_thread():
            self._before = {s: handler for s in _SIGNALS if (handler := signal.getsignal(s)) is not signal.SIG_IGN}
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)  # as `set_wakeup_fd` demands
            self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._listen, name="stop-signals", daemon=True)
            self._thread.start()
            for number in self._before:
                signal.signal(number, _do_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            signal.set_wakeup_fd(self._wakeup)
            self._writer.close()
            self._thread.join()
            self._reader.close()
        if self.requested is not None and not self._heeded:  # it came after the last `heed`
            ask_to_leave(self.requested)

    def heed(self) -> None:
        """To be called where stopping loses nothing.

        Raises:
            Stopped: a signal has come.
        """
        if self.requested is not None:
            self._heeded = True
            raise Stopped(f"stopped by {self.requested.name}", self.requested)

    def heeding(self, items: Iterator[T]) -> Iterator[T]:
        """Pass the items on, heeding before each."""
        for item in items:
            self.heed()
            yield item

    def _listen(self) -> None:
        while number := self._reader.recv(1):
            if number[0] not in self._before:
                continue  # another signal that Python handles
            if self.requested is not None:
                os._exit(128 + number[0])
            self.requested = signal.Signals(number[0])
            note(f"{self.requested.name}: stopping after this step; a second signal leaves at once")


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """In place of the default, which would end the process."""
