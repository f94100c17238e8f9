import shutil
from pathlib import Path

import pytest
import torch

from cifarfast.dataset.beton import Beton
from cifarfast.loaders import Feed
from cifarfast.loaders.resident import ResidentLoader
from tests.loaders.conftest import CPU, IMAGES

pytestmark = pytest.mark.usefixtures("left_as_found")


def test_needs_no_file_once_open(path: Path, tmp_path: Path, data: Beton) -> None:
    copy = Path(shutil.copy(path, tmp_path))
    loader = ResidentLoader(Feed(path=copy, images=IMAGES, batch_size=IMAGES, train=False), device=CPU)
    copy.unlink()
    with loader.epoch(0) as batches:
        assert torch.equal(next(batches).images.permute(0, 2, 3, 1), torch.from_numpy(data.images))


def test_a_batch_is_the_callers_own(path: Path) -> None:
    loader = ResidentLoader(Feed(path=path, images=IMAGES, batch_size=IMAGES, train=False), device=CPU)
    with loader.epoch(0) as batches:
        first = next(batches)
    kept = first.images.clone()
    first.images.zero_()
    with loader.epoch(0) as batches:
        assert torch.equal(next(batches).images, kept)


def test_says_that_nothing_loads_beside_it_and_that_it_does_not_augment(path: Path) -> None:
    loader = ResidentLoader(Feed(path=path, images=IMAGES, batch_size=8, train=True), device=CPU)
    assert (loader.name, loader.workers, loader.augments) == ("resident", 0, False)
