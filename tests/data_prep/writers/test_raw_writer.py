"""Our writer against FFCV's: the same file, to the last byte."""

from pathlib import Path

import numpy as np
import pytest

from cifarfast.dataset.beton import Beton, read_beton
from data_prep.writers.raw_writer import PAGE_BYTES, write_raw


def draw(count: int) -> Beton:
    random = np.random.default_rng(count)
    return Beton(
        random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, count, dtype=np.int64)
    )


PER_PAGE = PAGE_BYTES // 3072
COUNTS = [1, PER_PAGE, PER_PAGE + 1]


@pytest.mark.parametrize("count", COUNTS)
def test_reads_back(count: int, tmp_path: Path) -> None:
    data, path = draw(count), tmp_path / "x.beton"
    write_raw(path, data)
    read = read_beton(path)
    assert np.array_equal(read.images, data.images)
    assert np.array_equal(read.labels, data.labels)


def test_the_files_of_both_writers_are_the_same_so_ffcv_reads_both(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", exc_type=ImportError)
    from data_prep.writers.ffcv_writer import FFCVWriter

    files = {tmp_path / f"ffcv{count}": draw(count) for count in COUNTS}
    for path in files:
        path.touch()
    with FFCVWriter() as ffcv:
        ffcv.write(files)
    for path, data in files.items():
        ours = tmp_path / "ours"
        write_raw(ours, data)
        assert ours.read_bytes() == path.read_bytes()
