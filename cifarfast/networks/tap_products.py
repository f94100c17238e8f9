"""3x3 convolution of small images in bf16 on a CPU with matrix units: torch's, but for the gradient of the filters.

Of each of the nine taps that gradient is a product of two matrices, the gradient's channels by pixels, and pixels by
the channels of the images moved by the tap. Zeros between rows and between images let one matrix of pixels stand for
all nine, from another row on each; and with the pixels of the other side by side, which takes a pass of its own, such
products run at nearly twice the rate of torch's gradient.
"""

from functools import cache
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from cifarfast.networks import bfloat16
from cifarfast.networks.tap_products_passes import spread, turn

LARGEST_SIDE = 7
"""Of larger images torch's own gradient has not been beaten; nor of fewer channels."""
LEAST_CHANNELS = 192


def suits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `conv` takes these images and filters, and is faster than torch's operations."""
    batch, _, height, width = x.shape
    return (
        bfloat16.MATRIX_UNITS
        and bfloat16.runs_on(x.device, x.dtype)
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight.shape[2:] == (3, 3)
        and max(height, width) <= LARGEST_SIDE
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and batch * (height + 1) * (width + 1) % 4 == 0  # pixels are turned four at a time
        and not torch.compiler.is_compiling()
    )


def conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """3x3 convolution with padding 1, which rounds as torch's.

    Args:
        x: what `suits`: (B, C, H, W) in bf16, channels-last.
        weight: (K, C, 3, 3), bf16.

    Returns:
        (B, K, H, W), bf16, channels-last.
    """
    y: torch.Tensor = _Conv.apply(x, weight)
    return y


@cache
def compile_passes() -> None:
    """Let numba compile what it has not: some ten seconds once a machine, a fraction of one from its files later."""
    if bfloat16.MATRIX_UNITS:  # elsewhere nothing asks for them
        x, weight = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
        _of_filters(x, x, weight)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = conv2d_input(x.shape, weight, gradient, padding=1)  # type: ignore[no-untyped-call]
        return of_x, _of_filters(gradient, x, weight)


def _of_filters(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The gradient of `weight`, and like it, from that of what came of `x`."""
    (batch, channels, height, width), filters = x.shape, len(weight)
    line, image = width + 1, (height + 1) * (width + 1)
    count = batch * image
    images, turned = x.new_empty(count + 2 * image, channels), x.new_empty(filters, count)
    bfloat16.run(spread, x.permute(0, 2, 3, 1), images.view(batch + 2, height + 1, line, channels))
    bfloat16.run(turn, gradient.permute(0, 2, 3, 1), turned.view(torch.uint64))
    of_weight = torch.empty_like(weight)
    for row in range(3):
        for column in range(3):
            start = image + line * (row - 1) + column - 1
            of_weight[:, :, row, column] = torch.mm(turned, images[start : start + count])
    return of_weight
