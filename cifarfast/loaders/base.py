"""What a loader is: bytes to batches, nothing else."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cifarfast.checks import at_least, between
from cifarfast.dataset.beton import IMAGE_SHAPE
from cifarfast.errors import UserError
from cifarfast.randomness import seed_of
from cifarfast.runtime import allowed_cores
from cifarfast.selection import Losses, hardest, taken_by_epoch

if TYPE_CHECKING:
    from cifarfast.recipe import Augmentation

DEFAULT_MAX_WORKERS = 8

Indices = npt.NDArray[np.int64]
LoaderName = Literal["auto", "ffcv", "resident", "torchvision"]


class Batch(NamedTuple):
    """One batch on the device."""

    images: torch.Tensor
    """uint8 (B, 3, 32, 32) in channels-last memory. Valid for ever: it is never a view of a reused buffer."""
    labels: torch.Tensor
    """int64 (B,)."""
    indices: Indices
    """(B,), on the CPU: which images of the file these are."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Which images come in which order: the part that all loaders share.

    In training every epoch is a permutation that depends on (seed, epoch) alone, cut into batches of
    one shape; the images that do not fill a last batch are left out of that epoch, and so are the easiest
    where it takes a share of them only. In evaluation the order is that of the file and the last batch may
    be short, so that every image is seen exactly once.
    """

    path: Path
    """The `.beton` file."""
    images: int
    """Images in the file."""
    limit: int | None = None
    """Use this many of them, evenly spaced through the file (None: all)."""
    batch_size: int
    """Images a batch, of this process."""
    seed: int = 0
    """Seed of the order."""
    train: bool
    """Shuffled and of one batch shape, or in order and complete."""
    share: float = 1.0
    """Share of the images that an epoch takes in training."""
    rank: int = 0
    """Which share of every global batch is this process's."""
    world_size: int = 1
    """Number of processes that share an epoch."""

    def __post_init__(self) -> None:
        at_least("images", self.images, 1)
        at_least("batch_size", self.batch_size, 1)
        at_least("world_size", self.world_size, 1)
        between("rank", self.rank, 0, self.world_size - 1)
        if self.limit is not None:
            between("limit", self.limit, 1, self.images)
        between("share", self.share, 0.0, 1.0)
        if self.train and self.batch_size * self.world_size > self.of_epoch:
            raise ValueError(
                f"batch_size must be at most {self.of_epoch // self.world_size}, "
                f"the images of an epoch ({self.of_epoch}) over {self.world_size} process(es), not {self.batch_size}"
            )

    @property
    def count(self) -> int:
        """Images in use."""
        return self.images if self.limit is None else self.limit

    @property
    def of_epoch(self) -> int:
        """Images that an epoch may take."""
        return taken_by_epoch(self.count, self.share) if self.train else self.count

    def batches(self) -> int:
        """Batches an epoch yields to this process."""
        if self.train:
            return self.of_epoch // (self.batch_size * self.world_size)
        share = len(range(self.rank, self.count, self.world_size))
        return -(-share // self.batch_size)

    def order(self, epoch: int, start: int = 0, losses: Losses | None = None) -> Indices:
        """The image numbers of `epoch` that belong to this process, from batch `start` on.

        Args:
            losses: float32 (images,), by which an epoch that takes a share of the images chooses the hardest; None
                leaves the choice to chance.

        Raises:
            ValueError: `start` is not between 0 and the number of batches.
        """
        between("start", start, 0, self.batches())
        chosen = np.arange(self.count, dtype=np.int64) * self.images // self.count
        if self.train:
            shuffled = np.random.default_rng(seed_of(self.seed, "order", epoch)).permutation(chosen)
            taken = self.batches() * self.world_size * self.batch_size
            whole = shuffled[:taken] if losses is None else hardest(shuffled, losses, taken)
            mine = whole.reshape(-1, self.world_size, self.batch_size)[:, self.rank].reshape(-1)
        else:
            mine = np.array_split(chosen, self.world_size)[self.rank]
        return mine[start * self.batch_size :]

    def indices(self, epoch: int, start: int = 0, losses: Losses | None = None) -> list[Indices]:
        """`order`, cut into batches."""
        order = self.order(epoch, start, losses)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]


class Loader(Protocol):
    """Yields the batches of a `Feed` on a device."""

    name: str
    """`ffcv`, `resident` or `torchvision`."""
    feed: Feed
    """Which images, in which order."""
    workers: int
    """Threads or processes that really load."""
    augments: bool
    """Whether the images already come cropped, flipped and with holes (training with `torchvision`)."""

    def epoch(
        self, epoch: int, *, start: int = 0, losses: Losses | None = None
    ) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of `epoch` from batch `start` on, chosen by `losses` as in `Feed.order`.

        A context manager, so that leaving early (an error, an interrupt, a `break`) stops the threads
        and processes behind the iterator at once.

        Raises:
            ValueError: `start` is not between 0 and the number of batches.
        """
        ...


def check_count(feed: Feed, found: int) -> None:
    """Refuse a file that does not hold the images that the feed counts on.

    Raises:
        UserError: the file is not the one that was described.
    """
    if found != feed.images:
        raise UserError(
            f"{feed.path} holds {found} images where {feed.images} were expected: convert the data again with --force"
        )


def effective_workers(asked: int | None) -> int:
    """`asked`, but never more than the CPUs that this process may use; by default one each, at most 8."""
    return min(DEFAULT_MAX_WORKERS if asked is None else asked, allowed_cores())


def check_augmentation(name: LoaderName, augmentation: "Augmentation") -> None:
    """Refuse what the loader called `name` cannot do to training images; only `torchvision` does anything to them.

    Raises:
        UserError: the hole is as large as the image, or the flip is to alternate.
    """
    if name != "torchvision":
        return
    if augmentation.alternate_flip:
        raise UserError(
            "the torchvision loader flips at random: add --no-alternate-flip (in a study :alternate-flip=false), "
            "or take another --loader"
        )
    hole = augmentation.cutout_size
    if hole >= IMAGE_SHAPE[0]:  # RandomErasing would leave such images as they are
        raise UserError(f"cutout_size must be below {IMAGE_SHAPE[0]} with the torchvision loader, not {hole}")
