"""3x3 convolution and 2x2 max-pool in one, in bf16 on a CPU, by 2.25 times fewer multiplications.

Each pooled pixel is the largest of a tile of 2x2 outputs, and those depend on a tile of 4x4 inputs D and the filter F:

    A^T [(G F G^T) * (B^T D B)] A,        * element by element, summed over the input channels

Winograd's F(2x2, 3x3) (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308).
The sums over channels are 16 matrix products, which torch computes; what comes before and after is bound by memory, and
torch would pass over it once for every addition, so numba compiles one pass for each.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import njit, prange
from torch.autograd.function import once_differentiable

Bits = npt.NDArray[np.uint16]
"""bf16 as numpy sees it, which has no such type: the upper half of an fp32."""
Block = npt.NDArray[np.float32]
"""Some channels of a tile, (4, 4, C)."""

LEAST_CHANNELS = 48
"""Of the input: with fewer the products are too small to pay for the passes."""
_LANES = 64
"""Channels that a pass takes at a time, few enough for all 16 values of a tile to stay in the first cache."""
_KEPT = os.access(Path(__file__).parent, os.W_OK)
"""Whether what numba compiles can be kept beside this file."""
_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_FILTERS = torch.kron(_G, _G)
"""G F G^T as a matrix (16, 9) for F row by row."""


def suits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `conv_max_pool` takes these images and filters, and is faster than torch's two operations."""
    return (
        not torch.compiler.is_compiling()  # numba's functions are not the compiler's
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] >= LEAST_CHANNELS
        and all(side >= 4 and side % 2 == 0 for side in x.shape[2:])
        and weight.shape[2:] == (3, 3)
    )


def conv_max_pool(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """3x3 convolution without padding, then 2x2 max-pool.

    Its error is twice that of torch's convolution in bf16, for what goes into the products and what comes out of them
    is rounded too. Of equal pixels the first gets the gradient, as in torch.

    Args:
        x: what `suits`: (B, C, H, W) in bf16, channels-last.
        weight: (K, C, 3, 3), floating point.

    Returns:
        (B, K, H/2 - 1, W/2 - 1), bf16, channels-last.
    """
    pooled: torch.Tensor = _ConvMaxPool.apply(x.permute(0, 2, 3, 1), weight)
    return pooled.permute(0, 3, 1, 2)


@cache
def compile_passes() -> None:
    """Let numba compile what it has not: some ten seconds once a machine, a fraction of one from its files later."""
    # Torch's kind of threads come to rest sooner than TBB's, and torch's own wait for the cores.
    vars(numba.config)["THREADING_LAYER_PRIORITY"] = ["omp", "tbb", "workqueue"]
    with torch.device("cpu"), torch.enable_grad():  # whatever the network is being built on
        x = torch.zeros(1, LEAST_CHANNELS, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = torch.zeros(1, LEAST_CHANNELS, 3, 3)
        pooled = conv_max_pool(x.requires_grad_(), weight.requires_grad_())
        torch.autograd.backward(pooled, torch.zeros_like(pooled))


class _ConvMaxPool(torch.autograd.Function):
    """Of (B, H, W, C) to (B, H/2 - 1, W/2 - 1, K)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        rows, columns, filters = height // 2 - 1, width // 2 - 1, len(weight)
        numba.set_num_threads(min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"]))
        u = _product(_FILTERS, weight.permute(2, 3, 1, 0).reshape(9, -1)).to(x.dtype).view(16, channels, filters)
        tiles = x.new_empty(16, batch, rows, columns, channels)
        _split(_bits(x), _bits(tiles))
        products = torch.bmm(tiles.view(16, -1, channels), u)
        pooled = x.new_empty(batch, rows, columns, filters)
        place = x.new_empty(pooled.shape, dtype=torch.uint8)
        _pool(_bits(products), _bits(pooled.view(-1, filters)), place.view(-1, filters).numpy())
        ctx.save_for_backward(x, u, place)
        ctx.dtype = weight.dtype
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, u, place = ctx.saved_tensors
        _, channels, filters = u.shape
        gradient = gradient.contiguous()
        products = x.new_empty(16, gradient.shape[:3].numel(), filters)
        _unpool(_bits(gradient.view(-1, filters)), place.view(-1, filters).numpy(), _bits(products))
        # Computed anew in less time than it takes to read what else would be kept.
        tiles = x.new_empty(16, *gradient.shape[:3], channels)
        _split(_bits(x), _bits(tiles))
        of_u = torch.bmm(tiles.view(16, -1, channels).mT, products)
        torch.bmm(products, u.mT, out=tiles.view(16, -1, channels))
        of_x = torch.empty_like(x)
        _merge(_bits(tiles), _bits(of_x))
        of_weight = _product(_FILTERS.mT, of_u.view(16, -1)).view(3, 3, channels, filters).permute(3, 2, 0, 1)
        return of_x, of_weight.to(ctx.dtype, memory_format=torch.channels_last)


def _product(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """In fp32, whatever is asked around it."""
    with torch.autocast("cpu", enabled=False):
        return matrix @ values.float()


def _bits(tensor: torch.Tensor) -> Bits:
    bits: Bits = tensor.detach().view(torch.uint16).numpy()
    return bits


@njit(cache=_KEPT)
def _block() -> Block:
    return np.empty((4, 4, _LANES), np.float32)


@njit(cache=_KEPT)
def _widen(narrow: Bits, wide: npt.NDArray[np.uint32]) -> None:
    for c in range(len(narrow)):
        wide[c] = np.uint32(narrow[c]) << np.uint32(16)


@njit(cache=_KEPT)
def _round(wide: npt.NDArray[np.uint32], narrow: Bits) -> None:
    """To nearest, ties to even."""
    for c in range(len(narrow)):
        odd = (wide[c] >> np.uint32(16)) & np.uint32(1)
        narrow[c] = np.uint16((wide[c] + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(parallel=True, cache=_KEPT)
def _split(images: Bits, tiles: Bits) -> None:
    """B^T D B of every tile D, which overlap by two pixels: (B, H, W, C) to (16, B, H/2 - 1, W/2 - 1, C)."""
    count, rows, columns, channels = tiles.shape[1:]
    for n in prange(count):
        d, half, out = _block(), _block(), _block()
        for row in range(rows):
            for column in range(columns):
                for start in range(0, channels, _LANES):
                    end = min(start + _LANES, channels)
                    for a in range(4):
                        for b in range(4):
                            pixel = images[n, 2 * row + a, 2 * column + b, start:end]
                            _widen(pixel, d[a, b].view(np.uint32))
                    for b in range(4):
                        for c in range(end - start):
                            half[0, b, c] = d[0, b, c] - d[2, b, c]
                            half[1, b, c] = d[1, b, c] + d[2, b, c]
                            half[2, b, c] = d[2, b, c] - d[1, b, c]
                            half[3, b, c] = d[1, b, c] - d[3, b, c]
                    for a in range(4):
                        for c in range(end - start):
                            out[a, 0, c] = half[a, 0, c] - half[a, 2, c]
                            out[a, 1, c] = half[a, 1, c] + half[a, 2, c]
                            out[a, 2, c] = half[a, 2, c] - half[a, 1, c]
                            out[a, 3, c] = half[a, 1, c] - half[a, 3, c]
                    for a in range(4):
                        for b in range(4):
                            _round(out[a, b].view(np.uint32), tiles[4 * a + b, n, row, column, start:end])


@njit(parallel=True, cache=_KEPT)
def _merge(tiles: Bits, images: Bits) -> None:
    """The adjoint of `_split`: each pixel is the sum of what up to four tiles say of it."""
    count, rows, columns, channels = tiles.shape[1:]
    for n in prange(count):
        total = np.empty((2 * rows + 2, 2 * columns + 2, _LANES), np.float32)
        d, half = _block(), _block()
        for start in range(0, channels, _LANES):
            end = min(start + _LANES, channels)
            total[:] = 0
            for row in range(rows):
                for column in range(columns):
                    for a in range(4):
                        for b in range(4):
                            _widen(tiles[4 * a + b, n, row, column, start:end], d[a, b].view(np.uint32))
                    for b in range(4):
                        for c in range(end - start):
                            half[0, b, c] = d[0, b, c]
                            half[1, b, c] = d[1, b, c] - d[2, b, c] + d[3, b, c]
                            half[2, b, c] = d[1, b, c] + d[2, b, c] - d[0, b, c]
                            half[3, b, c] = -d[3, b, c]
                    for a in range(4):
                        for c in range(end - start):
                            pixels = total[2 * row + a]
                            pixels[2 * column, c] += half[a, 0, c]
                            pixels[2 * column + 1, c] += half[a, 1, c] - half[a, 2, c] + half[a, 3, c]
                            pixels[2 * column + 2, c] += half[a, 1, c] + half[a, 2, c] - half[a, 0, c]
                            pixels[2 * column + 3, c] -= half[a, 3, c]
            for y in range(2 * rows + 2):
                for x in range(2 * columns + 2):
                    _round(total[y, x].view(np.uint32), images[n, y, x, start:end])


@njit(cache=_KEPT)
def _inverse(p: Block, half: Block, pixels: Block, count: int) -> None:
    """A^T P A: (4, 4, C) to the first (2, 2, C) of `pixels`."""
    for b in range(4):
        for c in range(count):
            half[0, b, c] = p[0, b, c] + p[1, b, c] + p[2, b, c]
            half[1, b, c] = p[1, b, c] - p[2, b, c] - p[3, b, c]
    for i in range(2):
        for c in range(count):
            pixels[i, 0, c] = half[i, 0, c] + half[i, 1, c] + half[i, 2, c]
            pixels[i, 1, c] = half[i, 1, c] - half[i, 2, c] - half[i, 3, c]


@njit(cache=_KEPT)
def _either(one: Bits, other: Bits, target: Bits) -> None:
    for c in range(len(target)):
        target[c] = one[c] | other[c]


@njit(parallel=True, cache=_KEPT)
def _pool(products: Bits, pooled: Bits, place: npt.NDArray[np.uint8]) -> None:
    """Of the four pixels of every tile (16, N, K) the largest, and which it is, both (N, K)."""
    count, filters = pooled.shape
    for n in prange(count):
        p, half, pixels = _block(), _block(), _block()
        largest, which = np.empty(_LANES, np.float32), np.empty(_LANES, np.uint32)
        for start in range(0, filters, _LANES):
            end = min(start + _LANES, filters)
            for a in range(4):
                for b in range(4):
                    _widen(products[4 * a + b, n, start:end], p[a, b].view(np.uint32))
            _inverse(p, half, pixels, end - start)
            for c in range(end - start):
                largest[c], which[c] = pixels[0, 0, c], 0
            for i in range(1, 4):
                pixel = pixels[i // 2, i % 2]
                for c in range(end - start):
                    larger = pixel[c] > largest[c] or pixel[c] != pixel[c]  # what is not a number stays, as in torch
                    largest[c] = pixel[c] if larger else largest[c]
                    which[c] = np.uint32(i) if larger else which[c]
            _round(largest[: end - start].view(np.uint32), pooled[n, start:end])
            places = place[n, start:end]
            for c in range(end - start):
                places[c] = np.uint8(which[c])


@njit(parallel=True, cache=_KEPT)
def _unpool(pooled: Bits, place: npt.NDArray[np.uint8], products: Bits) -> None:
    """The adjoint of `_pool`, A Y A^T of tiles Y of which one pixel is not zero: so sums are exact, and `or` adds."""
    count, filters = pooled.shape
    for n in prange(count):
        plus, minus = np.empty((2, 2, _LANES), np.uint16), np.empty((2, 2, _LANES), np.uint16)
        half = np.empty((2, 4, 2, _LANES), np.uint16)
        for start in range(0, filters, _LANES):
            end = min(start + _LANES, filters)
            values, places = pooled[n, start:end], place[n, start:end]
            for i in range(2):
                for j in range(2):
                    for c in range(end - start):
                        value = values[c] if places[c] == np.uint8(2 * i + j) else np.uint16(0)
                        plus[i, j, c] = value
                        minus[i, j, c] = value ^ np.uint16(0x8000) if value else value
            for j in range(2):
                for c in range(end - start):
                    half[0, 0, j, c], half[1, 0, j, c] = plus[0, j, c], minus[0, j, c]
                    half[0, 1, j, c], half[1, 1, j, c] = plus[0, j, c] | plus[1, j, c], minus[0, j, c] | minus[1, j, c]
                    half[0, 2, j, c], half[1, 2, j, c] = plus[0, j, c] | minus[1, j, c], minus[0, j, c] | plus[1, j, c]
                    half[0, 3, j, c], half[1, 3, j, c] = minus[1, j, c], plus[1, j, c]
            for a in range(4):
                _either(half[0, a, 0], half[0, a, 0], products[4 * a, n, start:end])
                _either(half[0, a, 0], half[0, a, 1], products[4 * a + 1, n, start:end])
                _either(half[0, a, 0], half[1, a, 1], products[4 * a + 2, n, start:end])
                _either(half[1, a, 1], half[1, a, 1], products[4 * a + 3, n, start:end])
