"""The ordinary way, as the baseline that reports compare with: PIL images, `transforms.v2`, a DataLoader."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cifarfast.dataset.beton import IMAGE_SHAPE, Beton, read_beton
from cifarfast.errors import UserError
from cifarfast.loaders.base import Batch, Feed, check_count, effective_workers
from cifarfast.randomness import seed_of

if TYPE_CHECKING:
    from cifarfast.recipe import Augmentation

SIDE = IMAGE_SHAPE[0]
STALL_SECONDS = 120.0


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

    Raises:
        UserError: the file is unusable, holds another number of images than the feed says, or the hole is
            as large as the image.
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
    ) -> None:
        self.feed = feed
        self.workers = effective_workers(workers)
        self.augments = feed.train and augmentation is not None
        self._device = device
        self._data = read_beton(feed.path)
        check_count(feed, len(self._data.images))
        fill = tuple(round(255 * channel) for channel in mean)
        self._transform = _augmenting(augmentation, fill) if feed.train and augmentation else v2.PILToTensor()

    def epoch(self, epoch: int, *, start: int = 0) -> closing[Generator[Batch, None, None]]:
        """See `Loader.epoch`. The iterator raises RuntimeError if a worker dies or delivers nothing for 120 s."""
        images = _EpochImages(self._data, self._transform, self.feed.seed, epoch)
        loader = DataLoader(
            images,
            batch_sampler=[batch.tolist() for batch in self.feed.indices(epoch, start)],
            num_workers=self.workers,
            timeout=STALL_SECONDS if self.workers else 0.0,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # its own, so that the caller's generator does not move
        )
        return closing(self._batches(loader))

    def _batches(self, loader: DataLoader[tuple[torch.Tensor, int]]) -> Generator[Batch, None, None]:
        iterator = iter(loader)
        try:
            for images, labels in iterator:
                images = images.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
                yield Batch(images, labels.to(self._device, non_blocking=True))
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # the worker's end of a pipe or socket is gone
            raise RuntimeError(f"a DataLoader worker died ({error!r})") from error
        finally:
            # What the iterator does when it is collected, which a traceback that is still held would put off.
            getattr(iterator, "_shutdown_workers", _nothing)()


def _nothing() -> None:
    """An iterator that loads in this process has no workers to shut down."""


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


def _augmenting(augmentation: "Augmentation", fill: Sequence[int]) -> v2.Transform:
    """PIL image to uint8 (3, 32, 32): random crop, flip and hole."""
    hole = augmentation.cutout_size
    if hole >= SIDE:  # RandomErasing would leave such images as they are
        raise UserError(f"cutout_size must be below {SIDE} with the torchvision loader, not {hole}")
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
