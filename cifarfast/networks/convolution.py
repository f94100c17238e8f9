"""3x3 convolution of small images, and with it 2x2 max-pooling, by whatever is fastest where it runs."""

import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import tap_products, winograd
from cifarfast.networks.norm_gelu import norm_gelu, pool_norm_gelu
from cifarfast.networks.pooling import max_pool


def convolved(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Map (B, C_in, H, W) to (B, C_out, H, W), by a 3x3 convolution with padding 1 and without bias.

    Of 2x2 pixels each output depends on all four, and one product with a larger matrix takes a CPU a third of the time
    of what it does for such small images.
    """
    if x.shape[2:] == (2, 2) and x.device.type == "cpu":
        return _of_four_pixels(conv.weight.to(x.dtype), x)
    if winograd.suits(x, conv.weight, padding=1):
        return winograd.conv(x, conv.weight, padding=1)
    if tap_products.suits(x, conv.weight):
        return tap_products.conv(x, conv.weight.to(x.dtype))
    y: torch.Tensor = conv(x)
    return y


def pooled(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Map (B, C_in, H, W) to (B, C_out, H/2, W/2), rounded down; without padding of `conv` one less a side."""
    padding = int(conv.padding[0])
    if winograd.suits(x, conv.weight, padding=padding):
        return winograd.conv_max_pool(x, conv.weight, padding=padding)
    return max_pool(conv(x))


def pooled_norm_gelu(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """`pooled`, BatchNorm without trained scales, and GELU."""
    if winograd.suits(x, conv.weight, padding=int(conv.padding[0])):
        return norm_gelu(norm, pooled(conv, x))
    return pool_norm_gelu(norm, conv(x))


def _of_four_pixels(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    batch, channels = x.shape[:2]
    taps, corners = weight.permute(2, 3, 0, 1), [(row, column) for row in (0, 1) for column in (0, 1)]
    matrix = torch.cat([torch.cat([taps[1 - i + y, 1 - j + x] for y, x in corners], 1) for i, j in corners])
    y = F.linear(x.permute(0, 2, 3, 1).reshape(batch, 4 * channels), matrix)
    return y.view(batch, 2, 2, -1).permute(0, 3, 1, 2)
