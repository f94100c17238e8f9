"""FFCV's own writer, kept in a process that can be watched and, with all that it started, be ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from cifarfast.dataset.beton import Beton
from cifarfast.errors import UserError
from cifarfast.patience import STALL_SECONDS, polls
from data_prep.progress import stage
from data_prep.writers.ffcv_process import EXIT_NO_FFCV

_POLL_SECONDS = 0.05
_END_SECONDS = 2.0
_ROOT = Path(__file__).parents[2]


class FFCVMissingError(Exception):
    """FFCV cannot be imported; nothing was written."""


class FFCVWriter:
    """A context: entering it starts the process, leaving it leaves no process and no shared memory behind."""

    def __init__(self, *, stall_seconds: float = STALL_SECONDS) -> None:
        self.stall_seconds = stall_seconds
        self._sender: threading.Thread | None = None

    def __enter__(self) -> "FFCVWriter":
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "data_prep.writers.ffcv_process"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            # Writing compiles nothing, and without numba's compiler ffcv is imported three times faster.
            env=os.environ | {"TQDM_DISABLE": "1", "NUMBA_DISABLE_JIT": "1"},
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._sender is not None:
            self._sender.join()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        return self._process.pid

    def write(self, files: Mapping[Path, Beton]) -> None:
        """Write each data set to its path; to be called once.

        Raises:
            FFCVMissingError: FFCV is installed but cannot be imported.
            UserError: FFCV's writer failed, or wrote nothing for `stall_seconds`.
        """
        # In a thread, so that a process that does not read is noticed like one that does not write.
        self._sender = threading.Thread(target=self._send, args=(files,))
        self._sender.start()
        try:
            problem = self._watch(list(files), sum(data.images.nbytes for data in files.values()))
        except BaseException:
            self._end()  # before the caller removes the files: FFCV's worker would make them anew
            raise
        if self._process.returncode == EXIT_NO_FFCV:
            raise FFCVMissingError(f"ffcv cannot be imported ({self._last_error()})")
        if problem is not None:
            raise UserError(f"FFCV's writer failed ({problem}; {self._last_error()}): nothing was converted, try again")

    def _end(self) -> None:
        """End the process and all that it started."""
        # Not SIGKILL: Python's resource tracker, in the same group, ignores SIGTERM, outlives the others and
        # removes their shared memory. SIGCONT lets a stopped process notice.
        with contextlib.suppress(ProcessLookupError):
            for signum in (signal.SIGTERM, signal.SIGCONT):
                os.killpg(self.pid, signum)
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            for _ in polls(_END_SECONDS, _POLL_SECONDS):
                os.killpg(self.pid, 0)
                time.sleep(_POLL_SECONDS)

    def _send(self, files: Mapping[Path, Beton]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        heading = [(str(path.resolve()), len(data.images)) for path, data in files.items()]
        with contextlib.suppress(BrokenPipeError):  # it ended early: its exit status tells
            stdin.write(json.dumps(heading).encode() + b"\n")
            for data in files.values():
                stdin.write(data.images.data)
                stdin.write(data.labels.data)
            stdin.flush()

    def _watch(self, paths: Sequence[Path], total: int) -> str | None:
        """Wait for the end; returns what went wrong, if anything."""
        written, idle_seconds = 0, 0.0
        with stage("writing with FFCV", total=total, in_bytes=True) as advance:
            while self._process.poll() is None:
                time.sleep(_POLL_SECONDS)
                size = sum(path.stat().st_size for path in paths)
                if size != written:
                    advance(size - written)
                    written, idle_seconds = size, 0.0
                elif idle_seconds >= self.stall_seconds:
                    return f"it wrote nothing for {self.stall_seconds:g} s"
                else:
                    idle_seconds += _POLL_SECONDS  # not by the clock, which goes on while this process is suspended
        return f"exit status {self._process.returncode}" if self._process.returncode else None

    def _last_error(self) -> str:
        """The last line that names an exception, or else the last line, of what the process printed."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        lines = [line for line in lines if line and not line[0].isspace() and "resource_tracker" not in line]
        return next((line for line in reversed(lines) if "Error: " in line), (lines or ["it printed nothing"])[-1])[
            :300
        ]
