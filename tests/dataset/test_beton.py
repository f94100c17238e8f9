import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cifarfast.dataset import beton
from cifarfast.dataset.beton import ALLOCATION, FIELD, HEADER, IMAGE_BYTES, IMAGE_SHAPE, ROW, ROWS_OFFSET
from cifarfast.errors import UserError

COUNT = 7
PIXELS = ROWS_OFFSET + COUNT * ROW.itemsize
TABLE = PIXELS + COUNT * IMAGE_BYTES
SIZE = TABLE + COUNT * ALLOCATION.itemsize


class Parts:
    """The sections of a file, each to be spoiled on its own."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (COUNT, *IMAGE_SHAPE), dtype=np.uint8)
        place = random.permutation(COUNT)  # writers may store images in any order
        pointers = PIXELS + IMAGE_BYTES * place
        self.pixels = self.images[np.argsort(place)]
        self.header = np.zeros(1, HEADER)
        self.header["version"], self.header["num_fields"], self.header["page_size"] = 2, 2, 1 << 21
        self.header["num_samples"], self.header["alloc_table_ptr"] = COUNT, TABLE
        self.fields = np.zeros(2, FIELD)
        self.fields["type_id"] = 2, 1
        self.fields["name"][0, :5], self.fields["name"][1, :5] = list(b"image"), list(b"label")
        self.rows = np.zeros(COUNT, ROW)
        self.rows["image"]["mode"], self.rows["image"]["data_ptr"] = 1, pointers
        self.rows["image"]["width"] = self.rows["image"]["height"] = 32
        self.rows["label"] = random.integers(0, 10, COUNT)
        self.table = np.zeros(COUNT, ALLOCATION)
        self.table["sample_id"], self.table["ptr"], self.table["size"] = range(COUNT), pointers, IMAGE_BYTES
        random.shuffle(self.table)  # and list them in any order

    def write(self, path: Path) -> Path:
        sections = self.header, self.fields, self.rows, self.pixels, self.table
        path.write_bytes(b"".join(section.tobytes() for section in sections))
        return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.beton"


def test_reads_images_and_labels_in_the_order_of_the_rows(path: Path) -> None:
    parts = Parts()
    images, labels = beton.read_beton(parts.write(path))
    assert np.array_equal(images, parts.images)
    assert np.array_equal(labels, parts.rows["label"])
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_the_layout_is_ffcvs() -> None:
    pytest.importorskip("cifarfast.loaders.ffcv_loader")  # imports FFCV without its side effects
    types = pytest.importorskip("ffcv.types")
    fields = pytest.importorskip("ffcv.fields")
    assert types.CURRENT_VERSION == beton.VERSION
    assert types.HeaderType == HEADER
    assert types.FieldDescType == FIELD
    assert types.ALLOC_TABLE_TYPE == ALLOCATION
    row = types.get_metadata_type([fields.RGBImageField(), fields.IntField()])
    row.names = ROW.names  # FFCV's are f0 and f1
    assert row == ROW
    handlers = {number: handler.__name__ for number, handler in types.TYPE_ID_HANDLER.items() if handler}
    assert handlers[beton.RGB_IMAGE_FIELD] == "RGBImageField"
    assert handlers[beton.INT_FIELD] == "IntField"


def test_raw_bytes_are_read_only(path: Path) -> None:
    data, rows = beton.read_raw(Parts().write(path))
    assert data.size == path.stat().st_size
    assert len(rows) == COUNT
    assert not data.flags.writeable


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        beton.read_beton(path)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        HEADER.itemsize - 1,
        HEADER.itemsize,
        ROWS_OFFSET - 1,
        ROWS_OFFSET,
        PIXELS - 1,
        PIXELS,
        TABLE - 1,
        TABLE,
        TABLE + 1,
        SIZE - 1,
    ],
)
def test_a_truncated_file_is_refused(size: int, path: Path) -> None:
    Parts().write(path).write_bytes(path.read_bytes()[:size])
    assert "truncated" in refusal(path)


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(Parts().write(path).read_bytes() + b"\0")
    assert "allocation table" in refusal(path)


Spoil = Callable[[Parts], object]


def put(section: str, field: str, value: Any, index: Any = 0) -> Spoil:
    def spoil(parts: Parts) -> None:
        rows: npt.NDArray[np.void] = getattr(parts, section)
        rows[field][index] = value

    return spoil


def put_image(field: str, value: int) -> Spoil:
    return lambda parts: parts.rows["image"][field].__setitem__(3, value)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (put("header", "version", 1), "format version 1, not 2"),
        (put("header", "num_fields", 3), "3 fields"),
        (put("header", "page_size", 0), "page size 0"),
        (put("header", "page_size", 3), "page size 3"),
        (put("header", "num_samples", 0), "0 images"),
        (put("header", "num_samples", 2**63), f"{2**63} images"),
        (put("header", "num_samples", COUNT + 1), "cannot hold 8 images"),
        (put("header", "alloc_table_ptr", 0), "allocation table is not where"),
        (put("header", "alloc_table_ptr", 2**64 - 1), "allocation table is not where"),
        (put("fields", "type_id", 4), "not an image and a label"),
        (put("fields", "type_id", [1, 2], slice(None)), "not an image and a label"),
        (put("fields", "name", 255, (1, 0)), "not an image and a label"),
        (put("rows", "label", 10, 4), "image 4 has label 10"),
        (put("rows", "label", -1, 6), "image 6 has label -1"),
        (put_image("mode", 0), "not stored raw"),
        (put_image("width", 31), "not 32x32"),
        (put_image("height", 33), "not 32x32"),
        (put_image("data_ptr", PIXELS - 1), "outside the file"),
        (put_image("data_ptr", 2**64 - 1), "outside the file"),
        (put_image("data_ptr", PIXELS + 1), "does not match"),
        (put("table", "size", IMAGE_BYTES + 1), "does not match"),
        (put("table", "ptr", 0), "does not match"),
        (put("table", "sample_id", COUNT), "does not match"),
    ],
)
def test_a_wrong_field_is_refused(spoil: Spoil, reason: str, path: Path) -> None:
    parts = Parts()
    spoil(parts)
    message = refusal(parts.write(path))
    assert reason in message
    assert message.endswith("convert the data again with --force")


def test_a_missing_file_is_refused(path: Path) -> None:
    assert "No such file" in refusal(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_refused(make: Callable[[Path], object], path: Path) -> None:
    make(path)
    assert "not a plain file" in refusal(path)
