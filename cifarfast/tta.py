"""Test-time augmentation: the logits of an image averaged over slight changes of it."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.recipe import Tta

UNSURE = 1.5
"""An image whose two highest logits are closer than this is asked again by `selective`."""


class Augmented(nn.Module):
    """A network that is asked about slight changes of images too, and answers with fp32 means of its logits."""

    def __init__(self, network: nn.Module, tta: Tta) -> None:
        super().__init__()
        self.network, self.tta = network, tta

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, 10) of normalised images (B, 3, 32, 32)."""
        return augmented_logits(lambda views: self.network(views).float(), images, self.tta)


def augmented_logits(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, tta: Tta) -> torch.Tensor:
    """Logits (B, 10) of normalised images (B, 3, 32, 32).

    `flip`: the mean over the image and its mirror image. `flip+shift`: six views; these two weigh a quarter each, and
    an eighth each weigh the image moved by one pixel down and right, moved by one pixel up and left, and the mirror
    images of both. What moves in at the border is the reflection of what is there. Views and weights are those of
    `tta_level` 1 and 2 of cifar10-airbench (Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024).

    `selective`: the network's own logits, but those of `flip+shift` for an image whose two highest are less than
    `UNSURE` apart. Few are asked again, among them most of those that would change, and each as it would be alone.
    """
    if tta == "none":
        return network(images)
    if tta == "flip":
        return (network(images) + network(images.flip(3))) / 2
    if tta == "selective":
        logits = network(images)
        first, second = logits.topk(2).values.unbind(1)
        unsure = (first - second < UNSURE).nonzero()[:, 0]
        if not len(unsure):
            return logits
        return logits.index_copy(0, unsure, augmented_logits(network, images[unsure], "flip+shift"))
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    down, up = (augmented_logits(network, view, "flip") for view in (padded[..., :-2, :-2], padded[..., 2:, 2:]))
    return augmented_logits(network, images, "flip") / 2 + (down + up) / 4
