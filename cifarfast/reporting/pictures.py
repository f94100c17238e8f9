"""Photographs in a report: each as a PNG within the page, and all of a kind as one sheet in a file."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cifarfast.reporting.evidence import Pixels

_SCALE, _GAP, _COLUMNS = 3, 2, 8
_PAPER = 255


def data_uri(pixels: Pixels) -> str:
    """An image (H, W, 3) as the address of an `img`."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: Pixels) -> bytes:
    """An image (H, W, 3) as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def sheet(images: Sequence[Pixels]) -> Pixels:
    """Images (H, W, 3) of one size, three times as large and in rows of eight on white."""
    height, width, _ = images[0].shape
    columns, rows = min(len(images), _COLUMNS), -(-len(images) // _COLUMNS)
    page = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for place, image in enumerate(images):
        top, left = (place // _COLUMNS) * (height + _GAP), (place % _COLUMNS) * (width + _GAP)
        page[top : top + height, left : left + width] = image
    return page.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
