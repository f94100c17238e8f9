"""The whole split on the device: the ceiling that every loader is measured against, and the fallback without FFCV."""

from collections.abc import Generator
from contextlib import closing

import torch

from cifarfast.dataset.beton import read_beton
from cifarfast.loaders.base import Batch, Feed, Indices, check_count
from cifarfast.selection import Losses


class ResidentLoader:
    """Reads the split once, holds it on the device as (N, 32, 32, 3) uint8 and gathers batches there.

    Raises:
        UserError: the file is unusable, or holds another number of images than the feed says.
    """

    name = "resident"
    workers = 0
    augments = False

    def __init__(self, feed: Feed, *, device: torch.device) -> None:
        images, labels = read_beton(feed.path)
        check_count(feed, len(images))
        self.feed = feed
        self._images = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(labels).to(device)

    def epoch(
        self, epoch: int, *, start: int = 0, losses: Losses | None = None
    ) -> closing[Generator[Batch, None, None]]:
        """See `Loader.epoch`."""
        return closing(self._batches(self.feed.order(epoch, start, losses)))

    def _batches(self, order: Indices) -> Generator[Batch, None, None]:
        # One upload an epoch: one a batch would make the host wait for the device each time.
        chosen = torch.from_numpy(order).to(self._labels.device)
        for i in range(0, len(order), self.feed.batch_size):
            batch = slice(i, i + self.feed.batch_size)
            images = self._images.index_select(0, chosen[batch]).permute(0, 3, 1, 2)
            yield Batch(images, self._labels.index_select(0, chosen[batch]), order[batch])
