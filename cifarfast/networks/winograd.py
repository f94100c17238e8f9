"""3x3 convolution, alone or with 2x2 max-pool, in bf16 on a CPU, by 2.25 times fewer multiplications.

Each tile of 2x2 outputs depends on a tile of 4x4 inputs D and on the filter F:

    A^T [(G F G^T) * (B^T D B)] A,        * element by element, summed over the input channels

Winograd's F(2x2, 3x3) (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308).
The sums over channels are 16 matrix products, which torch computes; what comes before and after is bound by memory, and
torch would pass over it once for every addition, so numba compiles one pass for each (`winograd_passes`). To torch's
own compiler these are operators.
"""

from functools import cache
from typing import Any

import torch
from torch.library import custom_op
from torch.nn import functional as F

from cifarfast.networks import winograd_passes as passes
from cifarfast.networks.bfloat16 import MATRIX_UNITS, run, runs_on

_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_FILTERS = torch.kron(_G, _G)
"""G F G^T as a matrix (16, 9) for F row by row."""


LEAST_CHANNELS = 90 if MATRIX_UNITS else 32
"""From how many channels on it pays, those of input and output together taken as C K / (C + K).

The multiplications that it saves grow with C K, the passes that it adds with C + K. Matrix units multiply faster, and
memory is no faster beside them.
"""


def suits(x: torch.Tensor, weight: torch.Tensor, *, padding: int = 0) -> bool:
    """Whether `conv` and `conv_max_pool` take these images and filters, and are faster than torch's operations."""
    filters, channels = weight.shape[:2]
    return (
        runs_on(x.device, x.dtype)
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight.shape[2:] == (3, 3)
        and all(side % 2 == 0 and side + 2 * padding >= 4 for side in x.shape[2:])
        and channels * filters >= LEAST_CHANNELS * (channels + filters)
    )


def conv(x: torch.Tensor, weight: torch.Tensor, *, padding: int = 0) -> torch.Tensor:
    """3x3 convolution.

    Its error is twice that of torch's convolution in bf16, for what goes into the products and what comes out of them
    is rounded too.

    Args:
        x: what `suits`: (B, C, H, W) in bf16, channels-last.
        weight: (K, C, 3, 3), floating point.
        padding: rows and columns of zeros on every side.

    Returns:
        (B, K, H - 2 + 2 padding, W - 2 + 2 padding), bf16, channels-last.
    """
    joined, *_ = _conv(_padded(x, padding), weight)
    y: torch.Tensor = joined.permute(0, 3, 1, 2)
    return y


def conv_max_pool(x: torch.Tensor, weight: torch.Tensor, *, padding: int = 0) -> torch.Tensor:
    """`conv`, then 2x2 max-pool, whose windows are the tiles: all four pixels of one are never in memory.

    Of equal pixels the first gets the gradient, as in torch.

    Returns:
        (B, K, H/2 - 1 + padding, W/2 - 1 + padding), bf16, channels-last.
    """
    pooled, *_ = _conv_max_pool(_padded(x, padding), weight)
    y: torch.Tensor = pooled.permute(0, 3, 1, 2)
    return y


@cache
def compile_passes() -> None:
    """Let numba compile what it has not: some twenty seconds once a machine, a fraction of one from its files later."""
    x = torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
    for layer in (conv, conv_max_pool):
        y = layer(x, torch.zeros(1, 1, 3, 3))
        torch.autograd.backward(y, torch.zeros_like(y))


def _padded(x: torch.Tensor, padding: int) -> torch.Tensor:
    """(B, H + 2 padding, W + 2 padding, C)."""
    x = x.permute(0, 2, 3, 1)
    return F.pad(x, (0, 0, padding, padding, padding, padding)) if padding else x  # torch copies either way


@custom_op("cifarfast::winograd", mutates_args=())
def _conv(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, H, W, C) to (B, H - 2, W - 2, K), and what the way back needs: `tiles` and `filters` of `_products`."""
    y, tiles, filters = _unpooled(x, weight)
    run(passes.join, _products(x, weight, tiles, filters), y)
    return y, tiles, filters


@custom_op("cifarfast::winograd_backward", mutates_args=())
def _conv_backward(
    gradient: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the images and of `weight`."""
    products = _empty_products(tiles, filters)
    run(passes.unjoin, gradient, products)
    return _backward(products, tiles, filters, weight)


@custom_op("cifarfast::winograd_max_pool", mutates_args=())
def _conv_max_pool(
    x: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, H, W, C) to (B, H/2 - 1, W/2 - 1, K), which of its four pixels each was, and as `_conv`."""
    pooled, place, tiles, filters = _pooled(x, weight)
    products = _products(x, weight, tiles, filters)
    run(passes.pool, products.flatten(1, 3), pooled.flatten(0, 2), place.flatten(0, 2))
    return pooled, place, tiles, filters


@custom_op("cifarfast::winograd_max_pool_backward", mutates_args=())
def _conv_max_pool_backward(
    gradient: torch.Tensor, place: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the images and of `weight`."""
    products = _empty_products(tiles, filters)
    run(passes.unpool, gradient.flatten(0, 2), place.flatten(0, 2), products.flatten(1, 3))
    return _backward(products, tiles, filters, weight)


def _products(x: torch.Tensor, weight: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """The sums over channels, (16, B, H/2 - 1, W/2 - 1, K), of `tiles` and `filters`, which this computes."""
    run(passes.split, x, tiles)
    filters.copy_(_product(_FILTERS, weight.permute(2, 3, 1, 0).reshape(9, -1)).view(filters.shape))
    products = _empty_products(tiles, filters)
    torch.bmm(tiles.flatten(1, 3), filters, out=products.flatten(1, 3))
    return products


def _empty_products(tiles: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    return tiles.new_empty(*tiles.shape[:-1], filters.shape[-1])


def _backward(
    products: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of images and `weight` from that of what `_products` gave."""
    flat = products.flatten(1, 3)
    of_filters = torch.bmm(tiles.flatten(1, 3).mT, flat)
    of_tiles = torch.bmm(flat, filters.mT).view(tiles.shape)
    of_x = _images_of(tiles)
    run(passes.merge, of_tiles, of_x)
    of_weight = _product(_FILTERS.mT, of_filters.flatten(1)).view(3, 3, *filters.shape[1:]).permute(3, 2, 0, 1)
    return of_x, torch.empty_like(weight).copy_(of_weight)


def _images_of(tiles: torch.Tensor) -> torch.Tensor:
    _, batch, rows, columns, channels = tiles.shape
    return tiles.new_empty(batch, 2 * rows + 2, 2 * columns + 2, channels)


def _product(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """In fp32, whatever is asked around it."""
    with torch.autocast("cpu", enabled=False):
        return matrix @ values.float()


def _kept(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for B^T D B of every tile, (16, B, H/2 - 1, W/2 - 1, C), and G F G^T of every filter, (16, C, K).

    The way back needs them again, and they take longer to compute than to read.
    """
    batch, height, width, channels = x.shape
    return x.new_empty(16, batch, height // 2 - 1, width // 2 - 1, channels), x.new_empty(16, channels, len(weight))


@_conv.register_fake
def _unpooled(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, height, width, _ = x.shape
    return x.new_empty(batch, height - 2, width - 2, len(weight)), *_kept(x, weight)


@_conv_max_pool.register_fake
def _pooled(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tiles, filters = _kept(x, weight)
    shape = (*tiles.shape[1:4], len(weight))
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8), tiles, filters


@_conv_backward.register_fake
def _(
    _: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    del filters
    return _images_of(tiles), torch.empty_like(weight)


@_conv_max_pool_backward.register_fake
def _(
    _: torch.Tensor, place: torch.Tensor, tiles: torch.Tensor, filters: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    del place, filters
    return _images_of(tiles), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
    """Save what the backward pass reads: which pixels were the largest, if any were chosen, tiles, filters, weights."""
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # of the tiles' they would be zeros
    ctx.save_for_backward(*output[1:], inputs[1])


_conv.register_autograd(
    lambda ctx, gradient, *_: _conv_backward(gradient.contiguous(), *ctx.saved_tensors), setup_context=_keep
)
_conv_max_pool.register_autograd(
    lambda ctx, gradient, *_: _conv_max_pool_backward(gradient.contiguous(), *ctx.saved_tensors), setup_context=_keep
)
