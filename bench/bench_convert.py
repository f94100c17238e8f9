"""The conversion: from the official files to a checked folder, with FFCV's writer and with ours."""

from pathlib import Path

import numpy as np
import pytest

from bench.contest import Entrant
from bench.lab import Lab
from cifarfast.dataset.beton import Beton, read_beton
from data_prep.convert import convert
from data_prep.sources import open_source
from data_prep.sources.records import BATCHES, TEST_BATCH
from data_prep.writers import WriterName

QUICK_IMAGES = 4096


@pytest.mark.contest(group="convert", quick=2, full=5, baseline="ffcv")
@pytest.mark.parametrize("writer", ["ffcv", "cifarfast"])
def bench_convert(lab: Lab, writer: WriterName) -> Entrant:
    """The binary version is read, written, read back and digested: the whole command but for unpacking an archive.

    The images are those of the folder that is measured on; if quick, the first 4,096 of each split.
    """
    batches = lab.scratch / "batches"
    batches.mkdir()
    images = _write_batches(lab, batches)
    source = open_source(str(batches), cache=lab.scratch, any_count=True)

    def once() -> None:
        convert(source, lab.scratch / "out", force=True, writer=writer)

    return Entrant(once=once, work=images, warm_up=1)


def _write_batches(lab: Lab, folder: Path) -> int:
    """Write CIFAR-10's binary version into a folder; returns the number of images."""
    train, test = (read_beton(lab.folder / lab.manifest.split(name).file) for name in ("train", "test"))
    if lab.profile == "quick":
        train, test = (Beton(split.images[:QUICK_IMAGES], split.labels[:QUICK_IMAGES]) for split in (train, test))
    names = [name for name in BATCHES if name != TEST_BATCH]
    parts = zip(*(np.array_split(array, len(names)) for array in train), strict=True)
    for name, (images, labels) in [*zip(names, parts, strict=True), (TEST_BATCH, test)]:
        planes = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
        np.column_stack([labels.astype(np.uint8), planes]).tofile(folder / f"{name}.bin")
    return len(train.labels) + len(test.labels)
