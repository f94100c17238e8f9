"""What the products of the taps are given, compiled by numba: images with zeros between them, by pixels or channels."""

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from cifarfast.networks.bfloat16 import KEPT, Bits

_LANES, _QUADS = 32, 128
"""Channels and fours of pixels that are turned at a time: 32 KB, few enough for the first cache, and in long enough
pieces for the memory that they go to."""


@njit(parallel=True, cache=KEPT)
def spread(images: Bits, spaced: Bits) -> None:
    """(B, H, W, C) to (B + 2, H + 1, W + 1, C), the first and the last image and of others the end of lines zero."""
    count, height, width, _ = images.shape
    for n in prange(count + 2):
        target = spaced[n]
        if n in (0, count + 1):
            target[:] = 0
        else:
            for y in range(height):
                target[y, :width] = images[n - 1, y]
                target[y, width] = 0
            target[height] = 0


@njit(parallel=True, cache=KEPT)
def turn(images: Bits, fours: npt.NDArray[np.uint64]) -> None:
    """(B, H, W, C) to channels of (B, H + 1, W + 1) pixels, zero in between, of which each four are one number."""
    channels, count = fours.shape
    _, height, width, _ = images.shape
    line, image = width + 1, (height + 1) * (width + 1)
    pixels = images.reshape(-1, channels)
    for part in prange((count + _QUADS - 1) // _QUADS):
        first = part * _QUADS
        end = min(first + _QUADS, count)
        block, four = np.empty((_LANES, _QUADS), np.uint64), np.zeros((4, _LANES), np.uint16)
        a, b, c, d = four[0], four[1], four[2], four[3]
        for start in range(0, channels, _LANES):
            stop = min(start + _LANES, channels)
            for quad in range(first, end):
                for i in range(4):
                    n = (4 * quad + i) // image
                    y = (4 * quad + i) % image // line
                    x = (4 * quad + i) % line
                    if y < height and x < width:
                        four[i, : stop - start] = pixels[(n * height + y) * width + x, start:stop]
                    else:
                        four[i] = 0
                for k in range(stop - start):
                    low = np.uint64(a[k]) | (np.uint64(b[k]) << np.uint64(16))
                    high = np.uint64(c[k]) | (np.uint64(d[k]) << np.uint64(16))
                    block[k, quad - first] = low | (high << np.uint64(32))
            for k in range(stop - start):
                fours[start + k, first:end] = block[k, : end - first]
