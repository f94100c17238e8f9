"""What Winograd's algorithm does before and after its products, compiled by numba: one pass over memory each.

Tiles are their 4x4 values first, row by row.
"""

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from cifarfast.networks.bfloat16 import KEPT, Bits, narrow, widen

Block = npt.NDArray[np.float32]
"""Some channels of a tile, (4, 4, C)."""

_LANES = 64
"""Channels that a pass takes at a time, few enough for all 16 values of a tile to stay in the first cache."""


@njit(cache=KEPT)
def _block() -> Block:
    return np.empty((4, 4, _LANES), np.float32)


@njit(parallel=True, cache=KEPT)
def split(images: Bits, tiles: Bits) -> None:
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
                            widen(pixel, d[a, b])
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
                            narrow(out[a, b], tiles[4 * a + b, n, row, column, start:end])


@njit(parallel=True, cache=KEPT)
def merge(tiles: Bits, images: Bits) -> None:
    """The adjoint of `split`: each pixel is the sum of what up to four tiles say of it."""
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
                            widen(tiles[4 * a + b, n, row, column, start:end], d[a, b])
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
                    narrow(total[y, x], images[n, y, x, start:end])


@njit(cache=KEPT)
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


@njit(parallel=True, cache=KEPT)
def join(products: Bits, images: Bits) -> None:
    """A^T P A of every tile P, side by side: (16, B, H/2, W/2, K) to (B, H, W, K)."""
    count, rows, columns, filters = products.shape[1:]
    for n in prange(count):
        p, half, pixels = _block(), _block(), _block()
        for row in range(rows):
            for column in range(columns):
                for start in range(0, filters, _LANES):
                    end = min(start + _LANES, filters)
                    for a in range(4):
                        for b in range(4):
                            widen(products[4 * a + b, n, row, column, start:end], p[a, b])
                    _inverse(p, half, pixels, end - start)
                    for i in range(2):
                        for j in range(2):
                            pixel = images[n, 2 * row + i, 2 * column + j, start:end]
                            narrow(pixels[i, j], pixel)


@njit(parallel=True, cache=KEPT)
def unjoin(images: Bits, products: Bits) -> None:
    """The adjoint of `join`, A Y A^T of every tile Y of 2x2 pixels."""
    count, rows, columns, filters = products.shape[1:]
    for n in prange(count):
        y, half, out = _block(), _block(), _block()
        for row in range(rows):
            for column in range(columns):
                for start in range(0, filters, _LANES):
                    end = min(start + _LANES, filters)
                    for i in range(2):
                        for j in range(2):
                            pixel = images[n, 2 * row + i, 2 * column + j, start:end]
                            widen(pixel, y[i, j])
                    for j in range(2):
                        for c in range(end - start):
                            half[0, j, c] = y[0, j, c]
                            half[1, j, c] = y[0, j, c] + y[1, j, c]
                            half[2, j, c] = y[0, j, c] - y[1, j, c]
                            half[3, j, c] = -y[1, j, c]
                    for a in range(4):
                        for c in range(end - start):
                            out[a, 0, c] = half[a, 0, c]
                            out[a, 1, c] = half[a, 0, c] + half[a, 1, c]
                            out[a, 2, c] = half[a, 0, c] - half[a, 1, c]
                            out[a, 3, c] = -half[a, 1, c]
                    for a in range(4):
                        for b in range(4):
                            narrow(out[a, b], products[4 * a + b, n, row, column, start:end])


@njit(cache=KEPT)
def _either(one: Bits, other: Bits, target: Bits) -> None:
    for c in range(len(target)):
        target[c] = one[c] | other[c]


@njit(parallel=True, cache=KEPT)
def pool(products: Bits, pooled: Bits, place: npt.NDArray[np.uint8]) -> None:
    """Of the four pixels of every tile (16, N, K) the largest, and which it is, both (N, K)."""
    count, filters = pooled.shape
    for n in prange(count):
        p, half, pixels = _block(), _block(), _block()
        largest, which = np.empty(_LANES, np.float32), np.empty(_LANES, np.uint32)
        for start in range(0, filters, _LANES):
            end = min(start + _LANES, filters)
            for a in range(4):
                for b in range(4):
                    widen(products[4 * a + b, n, start:end], p[a, b])
            _inverse(p, half, pixels, end - start)
            for c in range(end - start):
                largest[c], which[c] = pixels[0, 0, c], 0
            for i in range(1, 4):
                pixel = pixels[i // 2, i % 2]
                for c in range(end - start):
                    larger = pixel[c] > largest[c] or pixel[c] != pixel[c]  # what is not a number stays, as in torch
                    largest[c] = pixel[c] if larger else largest[c]
                    which[c] = np.uint32(i) if larger else which[c]
            narrow(largest[: end - start], pooled[n, start:end])
            places = place[n, start:end]
            for c in range(end - start):
                places[c] = np.uint8(which[c])


@njit(parallel=True, cache=KEPT)
def unpool(pooled: Bits, place: npt.NDArray[np.uint8], products: Bits) -> None:
    """The adjoint of `pool`, A Y A^T of tiles Y of which one pixel is not zero: so sums are exact, and `or` adds."""
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
