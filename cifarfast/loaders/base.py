"""What a loader is: bytes to batches, nothing else."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cifarfast.randomness import seed_of

Indices = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """One batch on the device."""

    images: torch.Tensor
    """uint8 (B, 3, 32, 32) in channels-last memory. Valid for ever: it is never a view of a reused buffer."""
    labels: torch.Tensor
    """int64 (B,)."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Which images come in which order: the part that all loaders share.

    In training every epoch is a permutation that depends on (seed, epoch) alone, cut into batches of
    one shape; the images that do not fill a last batch are left out of that epoch. In evaluation the
    order is that of the file and the last batch may be short, so that every image is seen exactly once.
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
    rank: int = 0
    """Which share of every global batch is this process's."""
    world_size: int = 1
    """Number of processes that share an epoch."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.limit is not None and not 0 < self.limit <= self.images:
            raise ValueError(f"limit must be between 1 and {self.images}, not {self.limit}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must be between 0 and {self.world_size - 1}, not {self.rank}")
        if self.train and self.batch_size * self.world_size > self.count:
            raise ValueError(
                f"batch_size must be at most {self.count // self.world_size}, "
                f"the images of an epoch ({self.count}) over {self.world_size} process(es), not {self.batch_size}"
            )

    @property
    def count(self) -> int:
        """Images in use."""
        return self.images if self.limit is None else self.limit

    def batches(self) -> int:
        """Batches an epoch yields to this process."""
        return len(self.indices(0))

    def indices(self, epoch: int) -> list[Indices]:
        """The image numbers of each batch of `epoch` that belong to this process."""
        chosen = np.arange(self.count, dtype=np.int64) * self.images // self.count
        if not self.train:
            mine = np.array_split(chosen, self.world_size)[self.rank]
            return [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
        order = np.random.default_rng(seed_of(self.seed, "order", epoch)).permutation(chosen)
        step = self.batch_size * self.world_size
        first = self.rank * self.batch_size
        return [order[i + first : i + first + self.batch_size] for i in range(0, self.count - step + 1, step)]


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

    def epoch(self, epoch: int, *, start: int = 0) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of `epoch` from batch `start` on.

        A context manager, so that leaving early (an error, an interrupt, a `break`) stops the threads
        and processes behind the iterator at once.
        """
        ...
