"""Which images an epoch takes: those that were hardest when they were last seen.

I. Loshchilov and F. Hutter, "Online Batch Selection for Faster Training of Neural Networks" (arXiv:1511.06343), rank
all images by the last loss that each of them had. Here the ranking is made once an epoch, and cut.
"""

import numpy as np
import numpy.typing as npt
import torch

NEVER_SEEN = torch.finfo(torch.float32).max
"""In place of the loss of an image that was not seen yet: whatever was seen is easier."""

Losses = npt.NDArray[np.float32]


class LastLosses:
    """The loss of every training image when it was last seen.

    Args:
        images: images in the file, whether they are in use or not.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self._latest = torch.full((images,), NEVER_SEEN, device=device)
        self._at_start = self._latest.clone()

    def begin_epoch(self) -> None:
        """Let the losses of now decide what the epoch takes, whatever is recorded in it."""
        self._at_start.copy_(self._latest)

    def record(self, indices: torch.Tensor, losses: torch.Tensor, *, skip: torch.Tensor) -> None:
        """Keep the losses float32 (B,) of the images int64 (B,), on the device; none where `skip`, (), is positive."""
        self._latest[indices] = torch.where(skip > 0, self._latest[indices], losses)

    def ranking(self) -> Losses:
        """The losses, float32 (N,), that decide what the epoch under way takes (waits for the device)."""
        losses: Losses = self._at_start.cpu().numpy()
        return losses

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live state, always the same tensors: copy into them to restore it."""
        return {"latest": self._latest, "at_start": self._at_start}


def taken_by_epoch(images: int, share: float) -> int:
    """How many of so many images an epoch may take."""
    return round(share * images)


def hardest(images: npt.NDArray[np.int64], losses: Losses, count: int) -> npt.NDArray[np.int64]:
    """The `count` of the image numbers (M,) whose `losses` (N,) are highest, in the order in which they stand.

    Of equal losses the first stand for all: an order of chance makes a choice of chance.
    """
    ranks = np.argsort(-losses[images], kind="stable")
    return images[np.sort(ranks[:count])]
