"""One epoch of bytes to batches, as training reads them, without augmentation."""

from collections import deque
from pathlib import Path

import pytest

from bench.conftest import Measure
from cifarfast.dataset.manifest import Manifest
from cifarfast.device import Device
from cifarfast.errors import UserError
from cifarfast.loaders import Feed, LoaderName, open_loader


@pytest.mark.benchmark(group="loaders")
@pytest.mark.parametrize(("name", "workers"), [("resident", None), ("ffcv", None), ("torchvision", 0)])
def bench_epoch(
    measure: Measure, folder: Path, manifest: Manifest, device: Device, name: LoaderName, workers: int | None
) -> None:
    """Batches of 512, delivered and thrown away."""
    split = manifest.train
    feed = Feed(path=folder / split.file, images=split.images, batch_size=min(512, split.images), train=True)
    try:
        loader = open_loader(name, feed, device=device.target, workers=workers, augmentation=None, mean=manifest.mean)
    except UserError as error:
        pytest.skip(str(error))

    def epoch() -> None:
        with loader.epoch(0) as batches:
            deque(batches, maxlen=0)

    measure(epoch, images=feed.batches() * feed.batch_size, rounds=5, kind=manifest.kind, workers=loader.workers)
