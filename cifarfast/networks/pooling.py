"""Max-pooling: of 2x2 pixels, and of all."""

from typing import Any

import torch
from torch.nn import functional as F


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """Map (B, C, H, W) to (B, C, H/2, W/2), rounded down: the largest of each 2x2 pixels.

    Compiled in channels-last it is the same in expressions that fuse with their neighbours: of torch's own backward
    pass the compiler makes single additions into fp32, which cost a twentieth of a step in bf16.
    """
    compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    if compiling and x.is_contiguous(memory_format=torch.channels_last):
        pooled: torch.Tensor = MaxPool.apply(x)
        return pooled
    return F.max_pool2d(x, 2)


def global_max_pool(x: torch.Tensor) -> torch.Tensor:
    """Map (B, C, H, W) to (B, C): the largest pixel of each channel.

    Not by `amax`, whose backward pass looks for pixels that equal the largest and divides by their number: compiled, it
    looks among values that were computed anew in fp32, finds none that equals one rounded to bf16, and divides by zero.
    """
    return F.max_pool2d(x, x.shape[2:]).flatten(1)


class MaxPool(torch.autograd.Function):
    """For images in channels-last memory. Of equal pixels the first gets the gradient, as in torch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """As `max_pool`."""
        ctx.size = x.shape[2:]
        corners = _corners(x)
        # Which corner is kept in the dtype of the images: a mask of bytes would be taken apart lane by lane.
        largest, place = corners[0], torch.zeros_like(corners[0])
        for number, corner in enumerate(corners[1:], 1):
            place = torch.where(corner > largest, float(number), place)
            largest = torch.maximum(largest, corner)
        ctx.save_for_backward(place)
        return largest.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Map the gradient (B, C, H/2, W/2) to (B, C, H, W)."""
        (place,) = ctx.saved_tensors
        gradient = gradient.permute(0, 2, 3, 1)
        a, b, c, d = (torch.where(place == number, gradient, 0) for number in range(4))
        # Put together, not spread out by indices: each gradient is then computed once, and stored four times.
        rows = torch.stack([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)
        batch, height, width, channels = place.shape
        whole = rows.view(batch, 2 * height, 2 * width, channels)
        for dim, size in zip((1, 2), ctx.size, strict=True):
            if size % 2:
                whole = torch.cat([whole, torch.zeros_like(whole.narrow(dim, 0, 1))], dim)
        return whole.permute(0, 3, 1, 2)


def _corners(x: torch.Tensor) -> list[torch.Tensor]:
    """The four pixels of every window, row by row, each (B, H/2, W/2, C)."""
    height, width = (size // 2 * 2 for size in x.shape[2:])
    x = x.permute(0, 2, 3, 1)
    return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
