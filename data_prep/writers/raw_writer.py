"""Our writer of raw-image `.beton` files, byte for byte what FFCV's writes with one worker."""

from pathlib import Path

import numpy as np

from cifarfast.dataset import beton

PAGE_BYTES = 1 << 23
"""FFCV's default page size."""
_IMAGES_PER_PAGE = PAGE_BYTES // beton.IMAGE_BYTES


def write_raw(path: Path, data: beton.Beton) -> None:
    """Write uint8 images (N, 32, 32, 3) and int64 labels (N,).

    An image never crosses a page, and pages are written whole, because FFCV loads page by page.

    Raises:
        OSError: the file could not be written.
    """
    count = len(data.images)
    rows_end = beton.ROWS_OFFSET + count * beton.ROW.itemsize
    pages_start = -(-rows_end // PAGE_BYTES) * PAGE_BYTES
    page, slot = np.divmod(np.arange(count), _IMAGES_PER_PAGE)
    pointers = pages_start + page * PAGE_BYTES + slot * beton.IMAGE_BYTES
    pages_end = pages_start + (int(page[-1]) + 1) * PAGE_BYTES

    header = np.zeros(1, beton.HEADER)
    header["version"], header["num_fields"], header["num_samples"] = beton.VERSION, 2, count
    header["page_size"], header["alloc_table_ptr"] = PAGE_BYTES, pages_end
    fields = np.zeros(2, beton.FIELD)
    fields["type_id"] = beton.RGB_IMAGE_FIELD, beton.INT_FIELD
    for field, name in zip(fields, (b"image", b"label"), strict=True):
        field["name"][: len(name)] = np.frombuffer(name, dtype=np.uint8)
    rows = np.zeros(count, beton.ROW)
    rows["image"]["mode"], rows["image"]["data_ptr"], rows["label"] = beton.RAW_MODE, pointers, data.labels
    rows["image"]["height"], rows["image"]["width"] = beton.IMAGE_SHAPE[:2]
    allocations = np.zeros(count, beton.ALLOCATION)
    allocations["sample_id"], allocations["ptr"], allocations["size"] = np.arange(count), pointers, beton.IMAGE_BYTES

    with path.open("wb") as file:
        for part in (header, fields, rows):
            file.write(part.tobytes())
        for start in range(0, count, _IMAGES_PER_PAGE):
            file.seek(pages_start + start // _IMAGES_PER_PAGE * PAGE_BYTES)
            file.write(data.images[start : start + _IMAGES_PER_PAGE].tobytes())
        file.seek(pages_end)
        file.write(allocations.tobytes())
