"""The part of FFCV's `.beton` format (version 2) that a raw 32x32 RGB data set uses.

    header | descriptor of the image field | descriptor of the label field | one metadata row per image
    | pages of pixels, page-aligned | allocation table (image, pointer, size), up to the end

FFCV reads and writes it (libffcv/ffcv, `ffcv/types.py`); this module lets platforms where FFCV does
not build read the same files, and refuses what FFCV would serve in silence.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cifarfast.errors import UserError
from cifarfast.files import check_plain

VERSION = 2
RGB_IMAGE_FIELD = 2
INT_FIELD = 1
FIELD_NAMES = ("image", "label")
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


class Raw(NamedTuple):
    """The bytes of one file, and the rows that say where in them the images are."""

    data: npt.NDArray[np.uint8]
    """The whole file, read-only."""
    rows: npt.NDArray[np.void]
    """(N,), of dtype `ROW`; every field checked."""


class Beton(NamedTuple):
    """The decoded content of one file."""

    images: npt.NDArray[np.uint8]
    """(N, 32, 32, 3), height, width, channel."""
    labels: npt.NDArray[np.int64]
    """(N,), 0 to 9."""


def read_beton(path: Path, indices: npt.NDArray[np.int64] | None = None) -> Beton:
    """Read the images of a raw-image `.beton` file into memory.

    Args:
        path: the file.
        indices: int64 (N,), which of them, in which order; None for all.

    Raises:
        UserError: as `read_raw`.
    """
    data, rows = read_raw(path)
    if indices is not None:
        rows = rows[indices]
    windows = np.lib.stride_tricks.sliding_window_view(data, IMAGE_BYTES)
    images = windows[rows["image"]["data_ptr"]].reshape(-1, *IMAGE_SHAPE)
    return Beton(images, rows["label"].astype(np.int64))


def read_raw(path: Path) -> Raw:
    """Read the bytes of a `.beton` file in one go and check everything in it but the pixels.

    Raises:
        UserError: the file is missing, truncated, of another version, or not ten classes of raw
            32x32 RGB images.
    """
    try:
        check_plain(path)
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    data.setflags(write=False)
    try:
        count = _check_head(data)
        rows = _check_rows(data, count)
        _check_allocations(data, rows)
    except ValueError as defect:
        raise UserError(f"{path} is not a usable .beton file ({defect}): convert the data again with --force") from None
    return Raw(data, rows)


def _check_head(data: npt.NDArray[np.uint8]) -> int:
    """Check header and field descriptors; returns the number of images."""
    if data.size < ROWS_OFFSET:
        raise ValueError(f"truncated at {data.size} bytes")
    header = data[: HEADER.itemsize].view(HEADER)[0]
    if header["version"] != VERSION:
        raise ValueError(f"format version {header['version']}, not {VERSION}")
    if header["num_fields"] != 2:
        raise ValueError(f"{header['num_fields']} fields, not an image and a label")
    if int(header["page_size"]).bit_count() != 1:
        raise ValueError(f"page size {header['page_size']} is not a power of two")
    fields = data[HEADER.itemsize : ROWS_OFFSET].view(FIELD)
    names = tuple(bytes(name).rstrip(b"\0").decode("ascii", "replace") for name in fields["name"])
    if tuple(fields["type_id"]) != (RGB_IMAGE_FIELD, INT_FIELD) or names != FIELD_NAMES:
        raise ValueError("its fields are not an image and a label")
    count = int(header["num_samples"])
    if not 0 < count <= MAX_IMAGES:
        raise ValueError(f"{count} images")
    return count


def _check_rows(data: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.void]:
    """Check the metadata rows, and that what they point to lies inside the file."""
    end = ROWS_OFFSET + count * ROW.itemsize
    if data.size < end + count * IMAGE_BYTES:
        raise ValueError(f"truncated: {data.size} bytes cannot hold {count} images")
    rows = data[ROWS_OFFSET:end].view(ROW)
    image, labels = rows["image"], rows["label"]
    if (image["mode"] != RAW_MODE).any():
        raise ValueError("an image is not stored raw")
    if (image["height"] != IMAGE_SHAPE[0]).any() or (image["width"] != IMAGE_SHAPE[1]).any():
        raise ValueError("an image is not 32x32")
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if wrong.size:
        raise ValueError(f"image {wrong[0]} has label {labels[wrong[0]]}")
    if image["data_ptr"].min() < end or image["data_ptr"].max() > data.size - IMAGE_BYTES:
        raise ValueError("an image lies outside the file")
    return rows


def _check_allocations(data: npt.NDArray[np.uint8], rows: npt.NDArray[np.void]) -> None:
    """Check the table from which FFCV takes how many bytes to copy for each pointer."""
    start = int(data[: HEADER.itemsize].view(HEADER)[0]["alloc_table_ptr"])
    if data.size - start != len(rows) * ALLOCATION.itemsize:
        raise ValueError("truncated, or its allocation table is not where the header says")
    table = data[start:].view(ALLOCATION)
    order = np.argsort(table["sample_id"])
    agrees = np.array_equal(table["sample_id"][order], np.arange(len(rows), dtype=np.uint64)) and np.array_equal(
        table["ptr"][order], rows["image"]["data_ptr"]
    )
    if not agrees or (table["size"] != IMAGE_BYTES).any():
        raise ValueError("its allocation table does not match its images")
