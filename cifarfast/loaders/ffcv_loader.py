"""FFCV's loader, taught manners.

All that FFCV gets wrong in a training process is put right here and nowhere else:

- it sets torch's thread count, on import and on every epoch;
- it refuses more workers than CPUs;
- its thread outlives an iterator that is left early;
- an exception in its thread leaves the consumer waiting for ever (libffcv/ffcv issues 264 and 372);
- it yields views of a ring of buffers that it overwrites;
- it copies as many bytes as a damaged file tells it to (so `read_raw` checks the file first).
"""

import warnings
from collections.abc import Generator
from contextlib import closing
from typing import Any

import numba
import numpy as np
import torch

from cifarfast.dataset.beton import read_raw
from cifarfast.errors import UserError
from cifarfast.loaders.base import Batch, Feed, Indices, check_count, effective_workers
from cifarfast.loaders.threads import EndedError, StalledError, drain, receive
from cifarfast.patience import STALL_SECONDS
from cifarfast.selection import Losses

_torch_threads = torch.get_num_threads()
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # FFCV imports distutils
        from ffcv.loader import Loader
        from ffcv.loader.epoch_iterator import EpochIterator
        from ffcv.pipeline.compiler import Compiler
finally:  # also where its libraries are missing, which it finds out last
    torch.set_num_threads(_torch_threads)

_STOP_SECONDS = 3.0
_HINT = "take --loader resident, also to go on with --resume"


def _set_numba_threads(workers: int) -> None:
    """FFCV's `Compiler.set_num_threads` without its last line, which sets torch's threads as well."""
    Compiler.num_threads = workers
    numba.set_num_threads(workers)


Compiler.set_num_threads = _set_numba_threads


class FfcvLoader:
    """FFCV decodes raw images in a thread of its own, a few batches ahead; its augmentations are not used.

    The file is read into memory once, in one sequential read, and FFCV is given that copy: as fast as its
    memory map, which faults page by page and dies with SIGBUS if the file shrinks, and five times as fast
    as its process cache, which reads the file again every epoch with twelve threads that it does not end.

    Args:
        feed: which images, in which order.
        device: where the batches go.
        workers: decoding threads; None means one a CPU, at most 8. At least 1, at most the CPUs allowed.
        stall_seconds: how long to wait for one batch before giving up.

    Raises:
        UserError: the file is unusable, or holds another number of images than the feed says.
    """

    name = "ffcv"
    augments = False

    def __init__(
        self, feed: Feed, *, device: torch.device, workers: int | None = None, stall_seconds: float = STALL_SECONDS
    ) -> None:
        data, rows = read_raw(feed.path)
        check_count(feed, len(rows))
        self.feed = feed
        self.workers = max(1, min(effective_workers(workers), vars(numba.config)["NUMBA_NUM_THREADS"]))
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._stall_seconds = stall_seconds
        # A seed, although the order is the feed's: without one FFCV draws from numpy's global generator.
        self._loader = Loader(str(feed.path), feed.batch_size, num_workers=self.workers, os_cache=True, seed=0)
        # Read-only like FFCV's memory map: numba has another type for it, and of the writable array's type
        # FFCV alters the one instance that numba shares.
        assert not data.flags.writeable
        self._loader.memory_manager.context.mmap = data

    def epoch(
        self, epoch: int, *, start: int = 0, losses: Losses | None = None
    ) -> closing[Generator[Batch, None, None]]:
        """See `Loader.epoch`.

        The iterator raises UserError if FFCV's thread fails, or delivers nothing for `stall_seconds`.
        """
        return closing(self._batches(self.feed.order(epoch, start, losses)))

    def _batches(self, order: Indices) -> Generator[Batch, None, None]:
        thread, rest = _EpochThread(self._loader, order), order
        try:
            while (ready := thread.receive(self._stall_seconds)) is not None:
                images, labels = ready
                indices, rest = np.split(rest, [len(labels)])
                yield Batch(self._copy(images).permute(0, 3, 1, 2), self._copy(labels)[:, 0], indices)
        finally:
            thread.stop()

    def _copy(self, view: torch.Tensor) -> torch.Tensor:
        """Copy a view of FFCV's ring to the device; returns when the ring may move on."""
        if self._stream is None:
            # By numpy: torch would copy with its OpenMP threads, which then spin on the cores that FFCV needs.
            return torch.from_numpy(view.numpy().copy()).to(self._device)
        with torch.cuda.stream(self._stream):
            copy = view.to(self._device, non_blocking=True)
        self._stream.synchronize()  # waits for this copy alone, not for the training step
        copy.record_stream(torch.cuda.current_stream(self._device))
        return copy


class _EpochThread(EpochIterator):  # type: ignore[misc]  # FFCV is untyped
    """FFCV's thread for one epoch; starts on construction."""

    failure: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001, handed over to the consumer, which raises it
            self.failure = error

    def receive(self, stall_seconds: float) -> tuple[Any, Any] | None:
        """The next (images (B, 32, 32, 3), labels (B, 1)), views of the ring; None at the end."""
        try:
            item = receive(self, self.output_queue, stall_seconds)
        except StalledError:
            raise UserError(
                f"FFCV delivered no batch of {self.loader.fname} for {stall_seconds:g} s: {_HINT}"
            ) from None
        except EndedError:
            raise UserError(f"FFCV's loading thread failed ({self.failure!r}): {_HINT}") from self.failure
        return None if item is None else item[1]

    def stop(self) -> None:
        """End the thread and wait for it; a thread that is stuck is left behind after 3 s."""
        self.terminate_event.set()
        self.iter_ixes = iter(())
        drain(self, self.output_queue, _STOP_SECONDS)
