"""BatchNorm and GELU in one, and 2x2 max-pooling before or a gate after them, of bf16 images on a CPU.

There each of torch's operations reads all activations from memory and writes them back, and a step waits for memory
more than for arithmetic. Together they pass over it twice forward and twice back, with one rounding less.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import norm_gelu_passes as passes
from cifarfast.networks.bfloat16 import run, runs_on
from cifarfast.networks.gate import Gate
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


def norm_gelu_gate(norm: nn.BatchNorm2d, gate: Gate, x: torch.Tensor) -> torch.Tensor:
    """Map (B, C, H, W) to `gate` of `norm_gelu` of it, of the same shape."""
    if not _suits(norm, x):
        ungated: torch.Tensor = gate(norm_gelu(norm, x))
        return ungated
    y, mean, variance = _NormGeluGate.apply(x, norm.bias, gate.linear.weight, norm.eps)
    _follow(norm, mean, variance, x.numel() // len(mean))
    gated: torch.Tensor = y
    return gated


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
    """Let numba compile what it has not: some thirty seconds once a machine, a fraction of one from its files later."""
    norm = nn.BatchNorm2d(1)
    gate = Gate(1)
    for layer in (norm_gelu, lambda norm, x: norm_gelu_gate(norm, gate, x), pool_norm_gelu):
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
        rows, norm, *statistics = _normalised(ctx, x, bias, eps)
        y, _ = _activated(rows, norm)
        ctx.save_for_backward(rows, norm)
        return _images(y, x.shape), *statistics

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        rows, norm = ctx.saved_tensors
        d, of_bias = _through_norm(*_through_gelu(rows, _pixels(gradient), norm), rows, norm)
        return _images(d, gradient.shape), of_bias, None


class _NormGeluGate(torch.autograd.Function):
    """The same, and the gate's matrix (C, C), in whatever precision it is kept."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, ...]:
        rows, norm, *statistics = _normalised(ctx, x, bias, eps)
        y, means = _activated(rows, norm)
        with torch.autocast("cpu", enabled=False):
            factors = 2 * torch.sigmoid(means @ weight.float().mT)
        gated = torch.empty_like(y)
        run(passes.weigh, y, factors, gated)
        ctx.save_for_backward(rows, norm, y, means, factors, weight)
        return _images(gated, x.shape), *statistics

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        rows, norm, y, means, factors, weight = ctx.saved_tensors
        pixels, of_factors = _pixels(gradient), torch.empty_like(factors)
        run(passes.of_factors, y, pixels, of_factors)
        of_linear = of_factors * factors * (1 - factors / 2)
        of_means = of_linear @ weight.float()
        lines = torch.stack([factors, of_means / rows.shape[1]])
        d, of_bias = _through_norm(*_through_gelu(rows, pixels, norm, lines), rows, norm)
        return _images(d, gradient.shape), of_bias, (of_linear.mT @ means).to(weight.dtype), None


class _PoolNormGelu(torch.autograd.Function):
    """As `_NormGelu`, of the largest of each 2x2 pixels. Of equal pixels the first gets the gradient, as in torch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        batch, channels, height, width = x.shape
        rows = x.new_empty(batch, (height // 2) * (width // 2), channels)
        place, sums = torch.empty_like(rows, dtype=torch.uint8), _sums(channels)
        run(passes.pool, x.permute(0, 2, 3, 1), rows.flatten(0, 1), place.flatten(0, 1), sums)
        norm, *statistics = _norm(ctx, sums, bias, eps, rows.shape)
        y, _ = _activated(rows, norm)
        ctx.save_for_backward(rows, norm, place)
        return _images(y, (batch, channels, height // 2, width // 2)), *statistics

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        rows, norm, place = ctx.saved_tensors
        d, sums = _through_gelu(rows, _pixels(gradient), norm)
        line, of_bias = _line(sums, norm, rows.shape)
        batch, channels, height, width = gradient.shape
        images = d.new_empty(batch, 2 * height, 2 * width, channels)
        run(passes.unpool, rows.flatten(0, 1), d.flatten(0, 1), place.flatten(0, 1), line, sums, images)
        return images.permute(0, 3, 1, 2), of_bias, None


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W), in whatever order of memory, as (B, H W, C)."""
    return images.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def _images(pixels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(B, H W, C) as (B, C, H, W) of this shape."""
    batch, channels, height, width = shape
    return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _sums(channels: int) -> torch.Tensor:
    return torch.empty(PARTS, 2, channels)


def _normalised(ctx: Any, x: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
    """The pixels of `x`, and what `_norm` says of them."""
    rows, sums = _pixels(x), _sums(x.shape[1])
    run(passes.moments, rows.flatten(0, 1), sums)
    return rows, *_norm(ctx, sums, bias, eps, rows.shape)


def _norm(
    ctx: Any, sums: torch.Tensor, bias: torch.Tensor, eps: float, shape: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """Mean, reciprocal deviation and bias (3, C) from sums over (B, H W, C); mean and variance, of no gradient."""
    mean, square = sums.double().sum(0) / (shape[0] * shape[1])
    variance = (square - mean.square()).clamp(min=0)
    statistics = mean.float(), variance.float()
    ctx.mark_non_differentiable(*statistics)
    return torch.stack([mean.float(), (variance + eps).rsqrt().float(), bias.float()]), *statistics


def _activated(rows: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """GELU of the normalised pixels (B, H W, C), and its means (B, C)."""
    y, means = torch.empty_like(rows), torch.empty(len(rows), rows.shape[2])
    run(passes.activate, rows, norm, _sums(rows.shape[2]), y, means)
    return y, means


def _through_gelu(
    rows: torch.Tensor, gradient: torch.Tensor, norm: torch.Tensor, lines: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of what GELU was given, and the sums that BatchNorm's needs; `lines` as in the pass, or no gate."""
    if lines is None:
        batch, _, channels = rows.shape
        lines = torch.tensor([1.0, 0.0])[:, None, None].repeat(1, batch, channels)
    d, sums = torch.empty_like(rows), _sums(rows.shape[2])
    run(passes.slopes, rows, gradient, norm, lines, sums, d)
    return d, sums


def _line(sums: torch.Tensor, norm: torch.Tensor, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What makes the gradient of BatchNorm's inputs of that of its outputs, and the gradient of its bias."""
    count = shape[0] * shape[1]
    total, product = sums.double().sum(0)
    mean, reciprocal = norm[:2].double()
    slope = reciprocal.square() * product / count
    return torch.stack([reciprocal, slope, reciprocal * total / count - slope * mean]).float(), total.float()


def _through_norm(
    d: torch.Tensor, sums: torch.Tensor, rows: torch.Tensor, norm: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of BatchNorm's inputs, in place of that of its outputs, and that of its bias."""
    line, of_bias = _line(sums, norm, rows.shape)
    run(passes.through_norm, rows.flatten(0, 1), line, sums, d.flatten(0, 1))
    return d, of_bias
