"""What BatchNorm, GELU and gates do to bf16 images, compiled by numba: two passes over memory forward, and two back.

Images are rows of channels. Sums over rows are taken in parts of their own, whatever the number of threads, so that the
same rows always give the same bits.
"""

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from cifarfast.networks.bfloat16 import KEPT, Bits, Rows, power_of_two, to_bf16, to_fp32

_CONTRACT = {"contract"}
"""A product and a sum may be one instruction, and nothing looks for divisions by zero (`error_model`)."""

# exp2 of -1/2 to 1/2 as a polynomial, and the normal distribution's tail as one of 1 / (1 + _SLOPE |z|), to 7.5e-8
# (M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions", 1964, 26.2.17). As fp32, or all would be fp64.
_E1, _E2, _E3, _E4, _E5 = map(np.float32, (0.69314718, 0.24022651, 0.05550411, 0.00961813, 0.00133336))
_T1, _T2, _T3, _T4, _T5 = map(np.float32, (0.31938153, -0.356563782, 1.781477937, -1.821255978, 1.330274429))
_SLOPE = np.float32(0.2316419)
_ROOT = np.float32(0.39894228)
"""1 / sqrt(2 pi)."""
_HALF_LOG2E = np.float32(0.72134752)
_LEAST = np.float32(-100)
"""Exponents below are taken for this one: what is smaller still is computed a hundred times as slowly."""
_ONE, _HALF = np.float32(1), np.float32(0.5)


@njit(cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def _normal(z: np.float32) -> tuple[np.float32, np.float32]:
    """The standard normal distribution: its density at `z`, and how much of it is below."""
    y = max(-_HALF_LOG2E * z * z, _LEAST)
    whole = np.floor(y + _HALF)
    f = y - whole
    power = _ONE + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * _E5))))
    density = _ROOT * power * power_of_two(np.int32(whole))
    t = _ONE / (_ONE + _SLOPE * abs(z))
    tail = density * (t * (_T1 + t * (_T2 + t * (_T3 + t * (_T4 + t * _T5)))))
    return density, tail if z < 0 else _ONE - tail


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def moments(x: Bits, sums: npt.NDArray[np.float32]) -> None:
    """Sums of the rows (N, C) and of their squares, (parts, 2, C)."""
    parts, (rows, channels) = len(sums), x.shape
    for part in prange(parts):
        first, second = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for n in range(rows * part // parts, rows * (part + 1) // parts):
            row = x[n]
            for c in range(channels):
                v = to_fp32(row[c])
                first[c] += v
                second[c] += v * v
        sums[part, 0], sums[part, 1] = first, second


@njit(cache=KEPT)
def _larger(
    one: np.float32, place: np.uint32, other: np.float32, other_place: np.uint32
) -> tuple[np.float32, np.uint32]:
    """The larger of two values, and its place; of equal ones the first, but what is not a number, as in torch."""
    larger = other > one or other != other
    return other if larger else one, other_place if larger else place


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def pool(images: Bits, x: Bits, place: npt.NDArray[np.uint8], sums: npt.NDArray[np.float32]) -> None:
    """The largest of each 2x2 pixels of (B, H, W, C), and which it is, both (N, C); and `moments` of it."""
    parts, (count, height, width, channels) = len(sums), images.shape
    lines, columns = count * (height // 2), width // 2
    for part in prange(parts):
        first, second = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for line in range(lines * part // parts, lines * (part + 1) // parts):
            n, row = line // (height // 2), 2 * (line % (height // 2))
            for column in range(columns):
                a, b = images[n, row, 2 * column], images[n, row, 2 * column + 1]
                c, d = images[n, row + 1, 2 * column], images[n, row + 1, 2 * column + 1]
                pooled, places = x[line * columns + column], place[line * columns + column]
                for k in range(channels):
                    largest, which = _larger(to_fp32(a[k]), np.uint32(0), to_fp32(b[k]), np.uint32(1))
                    largest, which = _larger(largest, which, to_fp32(c[k]), np.uint32(2))
                    largest, which = _larger(largest, which, to_fp32(d[k]), np.uint32(3))
                    pooled[k] = to_bf16(largest)
                    places[k] = np.uint8(which)
                    first[k] += largest
                    second[k] += largest * largest
        sums[part, 0], sums[part, 1] = first, second


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def activate(x: Bits, norm: npt.NDArray[np.float32], parts: npt.NDArray[np.float32], y: Bits, means: Rows) -> None:
    """GELU of normalised images (B, H W, C), and its means (B, C).

    `norm` (3, C) is mean, reciprocal deviation and bias; there are as many parts as in `slopes`.
    """
    count, pixels, channels = x.shape
    mean, reciprocal, bias = norm[0], norm[1], norm[2]
    for part in prange(len(parts)):
        total = np.empty(channels, np.float32)
        for image in range(count * part // len(parts), count * (part + 1) // len(parts)):
            total[:] = 0
            for n in range(pixels):
                given, found = x[image, n], y[image, n]
                for c in range(channels):
                    z = (to_fp32(given[c]) - mean[c]) * reciprocal[c] + bias[c]
                    _, below = _normal(z)
                    total[c] += z * below
                    found[c] = to_bf16(z * below)
            of_image = means[image]
            for c in range(channels):
                of_image[c] = total[c] / np.float32(pixels)


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def weigh(x: Bits, factors: Rows, y: Bits) -> None:
    """Images (B, H W, C) times one factor for each of their channels (B, C)."""
    count, pixels, channels = x.shape
    for image in prange(count):
        factor = factors[image]
        for n in range(pixels):
            given, found = x[image, n], y[image, n]
            for c in range(channels):
                found[c] = to_bf16(factor[c] * to_fp32(given[c]))


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def of_factors(x: Bits, gradient: Bits, sums: Rows) -> None:
    """The gradient of the factors of `weigh` (B, C), from that of what it gave."""
    count, pixels, channels = x.shape
    for image in prange(count):
        total = np.zeros(channels, np.float32)
        for n in range(pixels):
            given, g = x[image, n], gradient[image, n]
            for c in range(channels):
                total[c] += to_fp32(given[c]) * to_fp32(g[c])
        sums[image] = total


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def slopes(
    x: Bits, gradient: Bits, norm: npt.NDArray[np.float32], lines: Rows, sums: npt.NDArray[np.float32], d: Bits
) -> None:
    """The gradient of what GELU was given; (parts, 2, C) sums of it, and of its product with the normalised images.

    That of what GELU gave is lines[0] times `gradient`, plus lines[1]; images are (B, H W, C), lines (2, B, C).
    """
    parts = len(sums)
    count, pixels, channels = x.shape
    mean, reciprocal, bias = norm[0], norm[1], norm[2]
    for part in prange(parts):
        first, second = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for image in range(count * part // parts, count * (part + 1) // parts):
            factor, start = lines[0, image], lines[1, image]
            for n in range(pixels):
                given, g, found = x[image, n], gradient[image, n], d[image, n]
                for c in range(channels):
                    u = (to_fp32(given[c]) - mean[c]) * reciprocal[c]
                    z = u + bias[c]
                    density, below = _normal(z)
                    slope = (factor[c] * to_fp32(g[c]) + start[c]) * (below + z * density)
                    first[c] += slope
                    second[c] += slope * u
                    found[c] = to_bf16(slope)
        sums[part, 0], sums[part, 1] = first, second


@njit(cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def _through_norm(x: np.uint16, d: np.uint16, factor: np.float32, slope: np.float32, start: np.float32) -> np.uint16:
    return to_bf16(factor * to_fp32(d) - (slope * to_fp32(x) + start))


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def through_norm(x: Bits, line: npt.NDArray[np.float32], parts: npt.NDArray[np.float32], d: Bits) -> None:
    """The gradient of BatchNorm's inputs, in place of that of its outputs: line[0] d - line[1] x - line[2]."""
    rows, channels = x.shape
    factor, slope, start = line[0], line[1], line[2]
    for part in prange(len(parts)):
        for n in range(rows * part // len(parts), rows * (part + 1) // len(parts)):
            given, g = x[n], d[n]
            for c in range(channels):
                g[c] = _through_norm(given[c], g[c], factor[c], slope[c], start[c])


@njit(parallel=True, cache=KEPT, error_model="numpy", fastmath=_CONTRACT)
def unpool(
    x: Bits,
    d: Bits,
    place: npt.NDArray[np.uint8],
    line: npt.NDArray[np.float32],
    parts: npt.NDArray[np.float32],
    images: Bits,
) -> None:
    """`through_norm`, then the adjoint of `pool`."""
    count, height, width, channels = images.shape
    lines, columns = count * (height // 2), width // 2
    factor, slope, start = line[0], line[1], line[2]
    for part in prange(len(parts)):
        bits = np.empty(channels, np.uint16)
        for number in range(lines * part // len(parts), lines * (part + 1) // len(parts)):
            n, row = number // (height // 2), 2 * (number % (height // 2))
            for column in range(columns):
                given, g = x[number * columns + column], d[number * columns + column]
                for c in range(channels):
                    bits[c] = _through_norm(given[c], g[c], factor[c], slope[c], start[c])
                places = place[number * columns + column]
                for i in range(4):
                    pixel = images[n, row + i // 2, 2 * column + i % 2]
                    for c in range(channels):
                        pixel[c] = bits[c] if places[c] == np.uint8(i) else np.uint16(0)
