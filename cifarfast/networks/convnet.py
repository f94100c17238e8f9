"""The speedrun network: whitened patches, six convolutions, 31, 15, 7 and 3 pixels a side.

    stem    3 -> 24, 2x2, fixed            31 x 31
    stage1 24 ->  w, pool; w -> w          15 x 15
    stage2  w -> 4w, pool; 4w -> 4w         7 x 7
    stage3 4w -> 4w, pool; 4w -> 4w         3 x 3
    max-pool, linear 4w -> 10 without bias, divided by 9

The network of cifar10-airbench (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498), which
goes back to T. Balsam's hlb-CIFAR10 (2023) and D. Page's ResNet-9 (2018), at any width; it also takes smaller images.
"""

import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import CLASSES
from cifarfast.networks.convolution import convolved, pooled_norm_gelu
from cifarfast.networks.gate import Gate
from cifarfast.networks.norm_gelu import norm_gelu, norm_gelu_gate
from cifarfast.networks.pooling import global_max_pool
from cifarfast.networks.whitening import whitening_filters

PATCH = 2
STEM_CHANNELS = 2 * 3 * PATCH * PATCH
NORM_MOMENTUM = 0.4
"""Weight of a batch in the running statistics: a run is over before those of 0.1 have followed."""
LOGIT_SCALE = 1 / 9


class BatchNorm(nn.BatchNorm2d):
    """Shifts but does not scale: the next convolution can do that, and an orthogonalised update does not see it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=NORM_MOMENTUM)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class Stem(nn.Module):
    """2x2 convolution and GELU; `whiten` sets the filters, and nothing trains them."""

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(STEM_CHANNELS, 3, PATCH, PATCH))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W) to (B, 24, H - 1, W - 1)."""
        return F.gelu(F.conv2d(images, self.filters))

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Make the first twelve outputs uncorrelated and of variance one, and the others their negatives.

        Args:
            images: normalised (N, 3, 32, 32), of the training split.
        """
        filters = whitening_filters(images, PATCH)
        self.filters.copy_(torch.cat([filters, -filters]))


class Stage(nn.Module):
    """Convolution, 2x2 max-pool, BatchNorm, GELU; convolution, BatchNorm, GELU; if asked for, a gate."""

    def __init__(self, channels_in: int, channels_out: int, *, gated: bool = False) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(channels_in, channels_out, padding=0), BatchNorm(channels_out)
        self.conv2, self.norm2 = _conv(channels_out, channels_out), BatchNorm(channels_out)
        self.gate = Gate(channels_out) if gated else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H/2, W/2), rounded down."""
        x = pooled_norm_gelu(self.conv1, self.norm1, _padded(x))
        x = convolved(self.conv2, x)
        return norm_gelu(self.norm2, x) if self.gate is None else norm_gelu_gate(self.norm2, self.gate, x)


class ConvNet(nn.Module):
    """The network; before it is trained, `whiten` must have seen images."""

    def __init__(self, *, width: int, gated: bool = False) -> None:
        super().__init__()
        self.stem = Stem()
        self.stage1 = Stage(STEM_CHANNELS, width, gated=gated)
        self.stage2 = Stage(width, 4 * width, gated=gated)
        self.stage3 = Stage(4 * width, 4 * width, gated=gated)
        self.head = nn.Linear(4 * width, CLASSES, bias=False)

    def whiten(self, images: torch.Tensor) -> None:
        """Set the stem, as `Stem.whiten` does."""
        self.stem.whiten(images)

    def forward(self, images: torch.Tensor, masks: None = None) -> torch.Tensor:
        """Class scores of normalised images.

        Args:
            images: (B, 3, H, W), floating point, H and W at least 17.
            masks: none, for nothing is dropped.

        Returns:
            (B, 10) logits.
        """
        del masks
        x = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: torch.Tensor = self.head(global_max_pool(x))
        return logits * LOGIT_SCALE


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Zeros around images, but below and to the right only of even sides.

    Of an odd side 2x2 pooling leaves out the last row and column, which so are not computed.
    """
    height, width = x.shape[2:]
    return F.pad(x, (1, 1 - width % 2, 1, 1 - height % 2))


def _conv(channels_in: int, channels_out: int, *, padding: int = 1) -> nn.Conv2d:
    """3x3, beginning as the identity on its first channels (nn.init.dirac_) and at random on what it adds to them."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=padding, bias=False)
    nn.init.dirac_(conv.weight.data[:channels_in])
    return conv
