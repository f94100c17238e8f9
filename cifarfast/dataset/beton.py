"""The part of FFCV's `.beton` format (version 2) that a raw 32x32 RGB data set uses.

    header | descriptor of the image field | descriptor of the label field | one metadata row per image
    | pages of pixels, page-aligned | allocation table (image, pointer, size)

FFCV reads and writes it (libffcv/ffcv, `ffcv/types.py`); this module lets platforms where FFCV does
not build read the same files, and refuses what FFCV would serve in silence.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cifarfast.errors import UserError

VERSION = 2
RGB_IMAGE_FIELD = 2
INT_FIELD = 1
RAW_MODE = 1
IMAGE_SHAPE = (32, 32, 3)
IMAGE_BYTES = 32 * 32 * 3
CLASSES = 10
MAX_IMAGES = 10_000_000

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
ROW = np.dtype([("image", IMAGE), ("label", "<i8")], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

ROWS_OFFSET = HEADER.itemsize + 2 * FIELD.itemsize


class Beton(NamedTuple):
    """The decoded content of one file."""

    images: npt.NDArray[np.uint8]
    """(N, 32, 32, 3), height, width, channel."""
    labels: npt.NDArray[np.int64]
    """(N,), 0 to 9."""


def read_beton(path: Path) -> Beton:
    """Read a whole raw-image `.beton` file into memory.

    Raises:
        UserError: the file is missing, truncated, of another version, or not ten classes of raw
            32x32 RGB images.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None

    def refuse(reason: str) -> UserError:
        return UserError(f"{path} is not a usable .beton file ({reason}): convert the data again with --force")

    if data.size < ROWS_OFFSET:
        raise refuse(f"truncated at {data.size} bytes")
    header = data[: HEADER.itemsize].view(HEADER)[0]
    if header["version"] != VERSION:
        raise refuse(f"format version {header['version']}, not {VERSION}")
    if header["num_fields"] != 2:
        raise refuse(f"{header['num_fields']} fields, not an image and a label")
    types = data[HEADER.itemsize : ROWS_OFFSET].view(FIELD)["type_id"]
    if tuple(types) != (RGB_IMAGE_FIELD, INT_FIELD):
        raise refuse("its fields are not an image and a label")
    count = int(header["num_samples"])
    if not 0 < count <= MAX_IMAGES:
        raise refuse(f"{count} images")
    rows_end = ROWS_OFFSET + count * ROW.itemsize
    if data.size < rows_end + count * IMAGE_BYTES:
        raise refuse(f"truncated: {data.size} bytes cannot hold {count} images")
    rows = data[ROWS_OFFSET:rows_end].view(ROW)
    image = rows["image"]
    if (image["mode"] != RAW_MODE).any():
        raise refuse("an image is not stored raw")
    if (image["width"] != IMAGE_SHAPE[1]).any() or (image["height"] != IMAGE_SHAPE[0]).any():
        raise refuse("an image is not 32x32")
    labels = rows["label"].astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if wrong.size:
        raise refuse(f"image {wrong[0]} has label {labels[wrong[0]]}")
    pointers = image["data_ptr"]
    if pointers.min() < rows_end or pointers.max() > data.size - IMAGE_BYTES:
        raise refuse("an image lies outside the file")
    images = np.lib.stride_tricks.sliding_window_view(data, IMAGE_BYTES)[pointers]
    return Beton(np.ascontiguousarray(images).reshape(count, *IMAGE_SHAPE), labels)
