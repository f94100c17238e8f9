"""The reference network: eight 3x3 convolutions, two of the three stages with a residual block.

    prep    3 ->  64                        32 x 32
    layer1 64 -> 128, pool, + residual(128)  16 x 16
    layer2 128 -> 256, pool                   8 x 8
    layer3 256 -> 512, pool, + residual(512)  4 x 4
    max-pool 4, linear 512 -> 10

A ResNet-9 after David Page's DAWNBench network ("How to train your ResNet", 2018), with the published
student project's widths and dropout; 6,573,130 parameters.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import CLASSES
from cifarfast.networks.convolution import convolved, pooled
from cifarfast.networks.mirror import halves_swapped
from cifarfast.networks.whitening import mirrored_whitening_filters, whitening_filters

# Output of every block for one image (channels, height, width): what its dropout mask must cover.
BLOCK_SHAPES = (
    (64, 32, 32),
    (128, 16, 16), (128, 16, 16), (128, 16, 16),
    (256, 8, 8),
    (512, 4, 4), (512, 4, 4), (512, 4, 4),
)  # fmt: skip
# Of each channel of the first block, the one that sees the same of a mirrored image.
PARTNERS = [*range(32, 64), *range(32)]
# 18 even filters, 9 odd ones, the negatives of both, and five mixtures with their mirror images.
WHITENED_PARTNERS = [*range(18), *range(45, 54), *range(27, 45), *range(18, 27), *range(59, 64), *range(54, 59)]


class ConvBlock(nn.Module):
    """3x3 convolution, (2x2 max-pool,) BatchNorm, ReLU, dropout."""

    def __init__(self, channels_in: int, channels_out: int, *, pool: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.pool = pool
        self.norm = nn.BatchNorm2d(channels_out)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H or H/2, W or W/2); `mask` as in `ResNet.forward`."""
        x = pooled(self.conv, x) if self.pool else convolved(self.conv, x)
        x = F.relu(self.norm(x))
        if mask is not None:
            return drop(x, mask, self.dropout)
        dropped: torch.Tensor = F.dropout(x, self.dropout, self.training)
        return dropped


class Residual(nn.Module):
    """Two blocks of one width around which the input is added."""

    def __init__(self, channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.block1 = ConvBlock(channels, channels, dropout=dropout)
        self.block2 = ConvBlock(channels, channels, dropout=dropout)

    def forward(self, x: torch.Tensor, mask1: torch.Tensor | None, mask2: torch.Tensor | None) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        change: torch.Tensor = self.block2(self.block1(x, mask1), mask2)
        return x + change


class ResNet(nn.Module):
    """The network.

    Args:
        dropout: share of activations dropped after every block.
        whitening: nothing trains the filters of the first block: before training, `whiten` must have seen images.
        norm_scale: whether the scales of BatchNorm are trained; they begin as one.
        mirrored: it begins as its own mirror image, see `networks.mirror`.
    """

    stem_partners: torch.Tensor

    def __init__(
        self, *, dropout: float = 0.0, whitening: bool = False, norm_scale: bool = True, mirrored: bool = False
    ) -> None:
        super().__init__()
        self.prep = ConvBlock(3, 64, dropout=dropout)
        self.prep.conv.weight.requires_grad_(not whitening)
        self.layer1 = ConvBlock(64, 128, pool=True, dropout=dropout)
        self.residual1 = Residual(128, dropout=dropout)
        self.layer2 = ConvBlock(128, 256, pool=True, dropout=dropout)
        self.layer3 = ConvBlock(256, 512, pool=True, dropout=dropout)
        self.residual3 = Residual(512, dropout=dropout)
        self.head = nn.Linear(512, CLASSES)
        for block in (module for module in self.modules() if isinstance(module, ConvBlock)):
            block.norm.weight.requires_grad_(norm_scale)
        self.mirrored = mirrored
        partners = WHITENED_PARTNERS if whitening else PARTNERS
        self.register_buffer("stem_partners", torch.tensor(partners), persistent=False)
        if mirrored:
            self._mirror_halves()

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Make 27 outputs of the first convolution uncorrelated and of variance one, and 27 others their negatives.

        The other ten are mixtures of these, of variance one as well, at random as the filters were; in a mirrored
        network five of them, and five mirror images.

        Args:
            images: normalised (N, 3, 32, 32), of the training split.
        """
        filters = torch.cat(mirrored_whitening_filters(images, 3)) if self.mirrored else whitening_filters(images, 3)
        weight = self.prep.conv.weight
        rest = weight[2 * len(filters) :]
        mixed = (F.normalize(rest.flatten(1).double()) @ filters.flatten(1)).reshape(rest.shape)
        if self.mirrored:
            mixed[5:] = mixed[:5].flip(3)
        weight.copy_(torch.cat([filters, -filters, mixed]))

    @torch.no_grad()
    def _mirror_halves(self) -> None:
        """Make the second half of all filters, and of the head's weights, the mirror images of the first."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                dim = int(name == "head.weight")
                mirrored = self.mirror_image(name, parameter).chunk(2, dim)[1]
                parameter.chunk(2, dim)[1].copy_(mirrored)

    def mirror_image(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """See `networks.mirror.Mirrored`."""
        if name.startswith("head."):
            return tensor if name == "head.bias" else halves_swapped(tensor, 1)
        if name.startswith("prep."):
            tensor = tensor[self.stem_partners]
        elif name == "layer1.conv.weight":
            tensor = halves_swapped(tensor[:, self.stem_partners], 0)
        else:
            tensor = halves_swapped(tensor, *range(min(tensor.ndim, 2)))
        return tensor.flip(3) if tensor.ndim == 4 else tensor

    def forward(self, images: torch.Tensor, masks: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Class scores of normalised images.

        Args:
            images: (B, 3, 32, 32), floating point.
            masks: one uint8 tensor of random bytes for each of the eight blocks, as `draw_masks` makes
                them; None leaves dropout to torch's own random state (and off in eval mode).

        Returns:
            (B, 10) logits.
        """
        m = masks if masks is not None else [None] * len(BLOCK_SHAPES)
        x = self.prep(images, m[0])
        x = self.residual1(self.layer1(x, m[1]), m[2], m[3])
        x = self.layer2(x, m[4])
        x = self.residual3(self.layer3(x, m[5]), m[6], m[7])
        x = F.max_pool2d(x, 4).flatten(1)
        logits: torch.Tensor = self.head(x)
        return logits


def drop(x: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
    """Dropout from random bytes: zero where the byte is below the threshold, else scaled to keep the mean.

    The rate is the nearest 256th (0.07 becomes 18/256 = 0.0703) and the scale is exact for that rate.
    """
    threshold = dropout_threshold(rate)
    # Compared as numbers of the images' dtype, which hold 0 to 255 exactly: compiled, bytes are compared lane by lane.
    return torch.where(mask.to(x.dtype) >= threshold, x * (256 / (256 - threshold)), 0.0)


def dropout_threshold(rate: float) -> int:
    """Bytes below this are dropped."""
    return min(round(256 * rate), 255)


def draw_masks(images: int, seed: int, *, device: torch.device) -> list[torch.Tensor]:
    """Random bytes for one batch, a mask (B, C, H, W) uint8 in channels-last memory for each block.

    Drawn on `device`, eight bytes at a time: ordinary dropout draws one number per activation, 105
    million a batch of 512, and on a CPU that costs more than anything but the convolutions.
    """
    counts = [images * math.prod(shape) for shape in BLOCK_SHAPES]
    parts = torch.split(_random_words(sum(counts) // 8, seed, device).view(torch.uint8), counts)
    return [
        part.view(images, height, width, channels).permute(0, 3, 1, 2)
        for part, (channels, height, width) in zip(parts, BLOCK_SHAPES, strict=True)
    ]


def _random_words(count: int, seed: int, device: torch.device) -> torch.Tensor:
    """`count` uniform int64 on `device`; numpy's generator is ten times faster than torch's on a CPU."""
    if device.type == "cpu":
        bits = np.random.Generator(np.random.PCG64DXSM(seed))
        return torch.from_numpy(bits.integers(-(2**63), 2**63, count))
    words = torch.empty(count, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=torch.Generator(device).manual_seed(seed))
