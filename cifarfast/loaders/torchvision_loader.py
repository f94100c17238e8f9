"""The ordinary way, as the baseline that reports compare with: PIL images, `transforms.v2`, a DataLoader."""

import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cifarfast.dataset.beton import IMAGE_SHAPE, Beton, read_beton
from cifarfast.errors import UserError
from cifarfast.loaders.base import Batch, Feed, Indices, check_augmentation, check_count, effective_workers
from cifarfast.loaders.threads import EndedError, StalledError, drain, receive
from cifarfast.patience import STALL_SECONDS
from cifarfast.randomness import seed_of
from cifarfast.selection import Losses

if TYPE_CHECKING:
    from cifarfast.recipe import Augmentation

SIDE = IMAGE_SHAPE[0]
_STOP_SECONDS = 2.0
_HINT = "take fewer --workers and go on with --resume"
_Item = tuple[torch.Tensor, torch.Tensor]


class TorchvisionLoader:
    """Augments image by image on the CPU, in worker processes.

    Crops, flips and holes are distributed as on the device, but for the fill, which is the mean rounded to
    a whole pixel value. They depend on (seed, epoch, image) alone, not on the number of workers.

    Args:
        feed: which images, in which order.
        device: where the batches go.
        workers: processes; 0 loads in this process, None means one a CPU, at most 8 and the CPUs allowed.
        augmentation: what is done to training images; None leaves them as they are.
        mean: mean of each channel, 0 to 1, the fill of borders and holes.
        stall_seconds: how long to wait for one batch of the processes before giving up.

    Raises:
        UserError: the file is unusable, holds another number of images than the feed says, the hole is as
            large as the image, or the flip is to alternate.
    """

    name = "torchvision"

    def __init__(
        self,
        feed: Feed,
        *,
        device: torch.device,
        workers: int | None,
        augmentation: "Augmentation | None",
        mean: tuple[float, float, float],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.feed = feed
        self.workers = effective_workers(workers)
        self.augments = feed.train and augmentation is not None
        self._device = device
        self._stall_seconds = stall_seconds
        self._data = read_beton(feed.path)
        check_count(feed, len(self._data.images))
        if feed.train and augmentation is not None:
            check_augmentation("torchvision", augmentation)
            self._transform = augmenting(augmentation, [round(255 * channel) for channel in mean])
        else:
            self._transform = v2.PILToTensor()

    def epoch(
        self, epoch: int, *, start: int = 0, losses: Losses | None = None
    ) -> closing[Generator[Batch, None, None]]:
        """See `Loader.epoch`.

        The iterator raises UserError if a worker dies, or none delivers anything for `stall_seconds`.
        """
        images = _EpochImages(self._data, self._transform, self.feed.seed, epoch)
        indices = self.feed.indices(epoch, start, losses)
        loader = DataLoader(
            images,
            batch_sampler=[batch.tolist() for batch in indices],
            num_workers=self.workers,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # its own, so that the caller's generator does not move
        )
        return closing(self._batches(loader, indices))

    def _batches(self, loader: DataLoader[Any], indices: list[Indices]) -> Generator[Batch, None, None]:
        if not self.workers:
            yield from map(self._send, loader, indices)
            return
        thread, rest = _EpochThread(loader), iter(indices)
        try:
            while (ready := thread.receive(self._stall_seconds)) is not None:
                yield self._send(ready, next(rest))
        finally:
            thread.stop()

    def _send(self, ready: _Item, indices: Indices) -> Batch:
        # Elsewhere than on CUDA, where these are pinned, memory might be freed before it has been copied.
        asynchronous = self._device.type == "cuda"
        images, labels = (tensor.to(self._device, non_blocking=asynchronous) for tensor in ready)
        return Batch(images.permute(0, 3, 1, 2), labels, indices)


class _EpochThread(threading.Thread):
    """Asks a DataLoader for one epoch; starts on construction.

    A thread, because to receive a tensor is to shake hands with the process that made it, which takes for
    ever if that was stopped. Besides, outside the main thread torch leaves SIGCHLD alone, from whose handler
    it would raise a worker's death wherever the main thread happened to be, as in the middle of a step.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(name="torchvision", daemon=True)
        self._loader = loader
        self._workers: list[Any] = []
        self._queue: Queue[_Item | None] = Queue(maxsize=1)
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        _block_signals()
        try:
            self._deliver()
        except BaseException as error:  # noqa: BLE001, handed over to the consumer, which raises it
            self._failure = error

    def _deliver(self) -> None:
        prefix = f"cifarfast-{uuid.uuid4().hex}-"  # of the folder of each worker of this epoch
        self._loader.worker_init_fn = partial(_begin_worker, prefix)
        iterator: Any = iter(self._loader)
        try:
            self._workers = iterator._workers
            for item in iterator:
                self._queue.put(item)
                if self._ending.is_set():
                    return
            self._queue.put(None)
        finally:
            iterator._shutdown_workers()  # when it is collected is too late: a traceback may hold it
            _remove_files(prefix)

    def receive(self, stall_seconds: float) -> _Item | None:
        """The next images (B, 32, 32, 3) and labels (B,); None at the end."""
        try:
            return receive(self, self._queue, stall_seconds)
        except (StalledError, EndedError) as error:
            # One that was killed in the middle of handing over a batch leaves the thread waiting for its rest.
            if codes := [worker.exitcode for worker in self._workers if worker.exitcode]:
                raise UserError(f"a worker of the torchvision loader died ({_ending(codes[0])}): {_HINT}") from None
            if isinstance(error, StalledError):
                raise UserError(f"the torchvision loader delivered no batch for {stall_seconds:g} s: {_HINT}") from None
            if isinstance(self._failure, MemoryError):
                raise UserError(f"a worker of the torchvision loader had too little memory: {_HINT}") from None
            assert self._failure is not None
            raise self._failure from None

    def stop(self) -> None:
        """End the thread and the workers and wait for them."""
        self._ending.set()
        if not drain(self, self._queue, _STOP_SECONDS):
            for worker in self._workers:
                worker.kill()  # a stopped process would not hear of SIGTERM
            drain(self, self._queue, _STOP_SECONDS)


def _begin_worker(prefix: str, _worker: int) -> None:
    """Keep the files of a worker, the sockets for its tensors, in a folder that the training process finds.

    A worker that is killed removes nothing itself; one whose training process is killed does.
    """
    _block_signals()
    tempfile.tempdir = tempfile.mkdtemp(prefix=prefix)
    Finalize(None, shutil.rmtree, (tempfile.tempdir, True), exitpriority=-1000)  # after the sockets


def _remove_files(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(prefix + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def _block_signals() -> None:
    """The terminal sends Ctrl-C to workers too, but it is the training process that decides when they end.

    Workers inherit this from the thread that starts them. Unblocked, they would also write every signal into
    the pipe by which the training process hears of its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def _ending(code: int) -> str:
    return f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"


class _EpochImages(Dataset[tuple[torch.Tensor, int]]):
    """A data set like torchvision's CIFAR10, whose random numbers depend on the epoch and the image."""

    def __init__(self, data: Beton, transform: v2.Transform, seed: int, epoch: int) -> None:
        self.data = data
        self.transform = transform
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """One image, uint8 (32, 32, 3), and its label."""
        image = Image.fromarray(self.data.images[index])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, "torchvision", self.epoch, index))
            tensor: torch.Tensor = self.transform(image)
        return tensor.permute(1, 2, 0), int(self.data.labels[index])


def augmenting(augmentation: "Augmentation", fill: Sequence[int]) -> v2.Transform:
    """PIL image to uint8 (3, 32, 32): random crop, flip and hole, of an augmentation that `check_augmentation` allows.

    Args:
        fill: 0 to 255, what borders and holes are.
    """
    hole = augmentation.cutout_size
    mode = {"zero": "constant", "reflect": "reflect"}[augmentation.padding_mode]
    share = hole**2 / SIDE**2
    return v2.Compose(
        [
            v2.RandomCrop(SIDE, padding=augmentation.crop_padding, fill=list(fill), padding_mode=mode),
            v2.RandomHorizontalFlip(augmentation.flip_probability),
            v2.PILToTensor(),
            v2.RandomErasing(
                augmentation.cutout_probability if hole else 0.0,
                scale=(share, share),
                ratio=(1.0, 1.0),
                value=list(fill),
            ),
        ]
    )
