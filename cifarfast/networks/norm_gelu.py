"""BatchNorm and GELU in one, and 2x2 max-pooling before them, of bf16 images on a CPU.

There each of torch's operations reads all activations from memory and writes them back, and a step waits for memory
more than for arithmetic. Together they pass over it twice forward and twice back, with one rounding less.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import norm_gelu_passes as passes
from cifarfast.networks.bfloat16 import run, runs_on
from cifarfast.networks.pooling import max_pool

PARTS = 16
"""Sums over a batch are of so many parts, each in fp32, which then are added up in fp64."""


def norm_gelu(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Map (B, C, H, W) to GELU of what a BatchNorm without trained scales makes of it, of the same shape."""
    if not _suits(norm, x):
        return F.gelu(norm(x))
    y, mean, variance = _NormGelu.apply(x, norm.bias, norm.eps)
    _follow(norm, mean, variance, x.numel() // len(mean))
    activated: torch.Tensor = y
    return activated


def pool_norm_gelu(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Map (B, C, H, W) to `norm_gelu` of the largest of each 2x2 pixels, (B, C, H/2, W/2), rounded down."""
    if any(side % 2 for side in x.shape[2:]) or not _suits(norm, x):
        return norm_gelu(norm, max_pool(x))
    y, mean, variance = _PoolNormGelu.apply(x, norm.bias, norm.eps)
    _follow(norm, mean, variance, x.numel() // 4 // len(mean))
    activated: torch.Tensor = y
    return activated


@cache
def compile_passes() -> None:
    """Let numba compile what it has not: some ten seconds once a machine, a fraction of one from its files later."""
    norm = nn.BatchNorm2d(1)
    for layer in (norm_gelu, pool_norm_gelu):
        x = torch.zeros(2, 1, 2, 2, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
        torch.autograd.backward(layer(norm, x).sum())


def _suits(norm: nn.BatchNorm2d, x: torch.Tensor) -> bool:
    return (
        norm.training
        and len(x) > 1
        and runs_on(x.device, x.dtype)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()  # which puts such operations together by itself
    )


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
    """Let the running statistics follow those of a batch of `count` values a channel, as torch does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


class _NormGelu(torch.autograd.Function):
    """Of x (B, C, H, W) and the bias (C,): the activations, and mean and variance of each channel, fp32 (C,)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        images = x.permute(0, 2, 3, 1)
        rows, sums = images.flatten(0, 2), _sums(x.shape[1])
        run(passes.moments, rows, sums)
        return _activated(ctx, rows, sums, bias, eps, images.shape, ())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        rows, norm = ctx.saved_tensors
        d, line, of_bias, sums = _backward(gradient, rows, norm)
        run(passes.through_norm, rows, line, sums, d)
        return _images(d, gradient), of_bias, None


class _PoolNormGelu(torch.autograd.Function):
    """The same of the largest of each 2x2 pixels. Of equal pixels the first gets the gradient, as in torch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        images, sums = x.permute(0, 2, 3, 1), _sums(x.shape[1])
        batch, height, width, channels = images.shape
        shape = (batch, height // 2, width // 2, channels)
        rows = x.new_empty(batch * (height // 2) * (width // 2), channels)
        place = torch.empty_like(rows, dtype=torch.uint8)
        run(passes.pool, images, rows, place, sums)
        return _activated(ctx, rows, sums, bias, eps, shape, (place,))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        rows, norm, place = ctx.saved_tensors
        d, line, of_bias, sums = _backward(gradient, rows, norm)
        batch, channels, height, width = gradient.shape
        images = d.new_empty(batch, 2 * height, 2 * width, channels)
        run(passes.unpool, rows, d, place, line, sums, images)
        return images.permute(0, 3, 1, 2), of_bias, None


def _activated(
    ctx: Any,
    rows: torch.Tensor,
    sums: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    shape: tuple[int, ...],
    kept: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    mean, square = sums.double().sum(0) / len(rows)
    variance = (square - mean.square()).clamp(min=0)
    norm = torch.stack([mean.float(), (variance + eps).rsqrt().float(), bias.float()])
    y = torch.empty_like(rows)
    run(passes.activate, rows, norm, sums, y)
    ctx.save_for_backward(rows, norm, *kept)
    statistics = mean.float(), variance.float()
    ctx.mark_non_differentiable(*statistics)
    return y.view(shape).permute(0, 3, 1, 2), *statistics


def _backward(
    gradient: torch.Tensor, rows: torch.Tensor, norm: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradient of what GELU was given; what `through_norm` makes of it; that of the bias; and the sums."""
    d, sums = torch.empty_like(rows), _sums(rows.shape[1])
    run(passes.slopes, rows, gradient.permute(0, 2, 3, 1).reshape(rows.shape), norm, sums, d)
    total, product = sums.double().sum(0)
    mean, reciprocal = norm[:2].double()
    slope = reciprocal.square() * product / len(rows)
    line = torch.stack([reciprocal, slope, reciprocal * total / len(rows) - slope * mean]).float()
    return d, line, total.float(), sums


def _images(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _sums(channels: int) -> torch.Tensor:
    return torch.empty(PARTS, 2, channels)
