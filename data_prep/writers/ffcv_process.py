"""The process in which FFCV's writer runs.

FFCV's `DatasetWriter` waits for ever when its worker process dies. Here that ends this process at once, and
so does the end of its parent: stdin first brings a line of JSON, [[path, number of images], ...], and the
images and labels of each file, and then stays open as a lifeline.
"""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import numpy.typing as npt

from cifarfast.dataset.beton import IMAGE_SHAPE, Beton

EXIT_NO_FFCV = 3
EXIT_WORKER_DIED = 4


class Images:
    """What FFCV calls a data set: image and label by index."""

    def __init__(self, data: Beton) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        return self.data.images[index], int(self.data.labels[index])


def main() -> None:
    """Import FFCV, which takes seconds, then read everything from stdin, then write file after file."""
    try:
        writer = importlib.import_module("ffcv.writer")
        fields = importlib.import_module("ffcv.fields")
    except Exception as error:  # noqa: BLE001 (ImportError, or whatever a broken native library makes of it)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(EXIT_NO_FFCV)
    files = _receive()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    multiprocessing.set_start_method("fork", force=True)  # the worker shares the images instead of copying them
    signal.signal(signal.SIGCHLD, _end_with_worker)
    for path, data in files.items():
        kinds = {"image": fields.RGBImageField(write_mode="raw"), "label": fields.IntField()}
        # One worker: several would write the pages in an order of chance.
        dataset_writer = writer.DatasetWriter(path, kinds, num_workers=1)
        dataset_writer.prepare = _sigterm_deferred()(dataset_writer.prepare)
        dataset_writer.from_indexed_dataset(Images(data))


def _receive() -> dict[str, Beton]:
    with open(0, "rb", closefd=False) as stdin:
        files = {
            path: Beton(np.empty((count, *IMAGE_SHAPE), np.uint8), np.empty(count, np.int64))
            for path, count in json.loads(stdin.readline() or "[]")
        }
        for array in (array for data in files.values() for array in data):
            if stdin.readinto(array.data) != array.nbytes:
                sys.exit("the parent ended before it had sent everything")
    return files


@contextmanager
def _sigterm_deferred() -> Iterator[None]:
    """Let a SIGTERM wait: in between, shared memory is made that Python's resource tracker does not yet know of."""
    arrived = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: arrived.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if arrived.is_set():
            os.kill(os.getpid(), signal.SIGTERM)


def _end_with_parent() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGTERM)


def _end_with_worker(_signum: int, _frame: FrameType | None) -> None:
    # WNOWAIT leaves the status for `multiprocessing` to collect.
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is not None and ended.si_status != 0:
        print(f"its worker process died with status {ended.si_status}", file=sys.stderr, flush=True)
        # Not sys.exit: on the way out `multiprocessing` would wait for a queue that nobody empties any more.
        os._exit(EXIT_WORKER_DIED)


if __name__ == "__main__":
    main()
