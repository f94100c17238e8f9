"""What holds for every loader, and how one is chosen."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cifarfast.dataset.beton import Beton
from cifarfast.errors import UserError
from cifarfast.loaders import Batch, Feed, LoaderName, open_loader
from tests.loaders.conftest import CPU, IMAGES, MEAN, Opener, needs_ffcv

pytestmark = pytest.mark.usefixtures("left_as_found")

every_loader = pytest.mark.parametrize("name", [pytest.param("ffcv", marks=needs_ffcv), "resident", "torchvision"])


@pytest.fixture
def train(path: Path) -> Feed:
    return Feed(path=path, images=IMAGES, batch_size=16, seed=5, train=True)


def expect(batches: list[Batch], data: Beton, indices: list[npt.NDArray[np.int64]]) -> None:
    """Every batch holds the file's images and labels at `indices`, in the promised form."""
    assert len(batches) == len(indices)
    for batch, chosen in zip(batches, indices, strict=True):
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert batch.images.device == batch.labels.device == CPU
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.images, torch.from_numpy(data.images[chosen]).permute(0, 3, 1, 2))
        assert torch.equal(batch.labels, torch.from_numpy(data.labels[chosen]))
        assert batch.indices.dtype == np.int64
        assert np.array_equal(batch.indices, chosen)


@every_loader
def test_yields_the_images_of_the_feed_and_they_stay_valid(
    name: LoaderName, train: Feed, data: Beton, opened: Opener
) -> None:
    loader = opened(name, train)
    for epoch in (0, 3):
        with loader.epoch(epoch) as batches:
            kept = list(batches)  # more batches than FFCV's ring has places
        assert len(kept) == train.batches() == 12
        expect(kept, data, train.indices(epoch))


@every_loader
def test_starts_in_the_middle_and_at_the_end(name: LoaderName, train: Feed, data: Beton, opened: Opener) -> None:
    for start in (9, 12):
        with opened(name, train).epoch(1, start=start) as batches:
            expect(list(batches), data, train.indices(1)[start:])


@every_loader
def test_a_start_outside_the_epoch_is_refused_at_once(name: LoaderName, train: Feed, opened: Opener) -> None:
    with pytest.raises(ValueError, match="start must be between 0 and 12, not 13"):
        opened(name, train).epoch(0, start=13)


@every_loader
def test_a_share_of_a_limited_epoch(name: LoaderName, train: Feed, data: Beton, opened: Opener) -> None:
    feed = dataclasses.replace(train, limit=100, rank=1, world_size=3)
    with opened(name, feed).epoch(2) as batches:
        expect(list(batches), data, feed.indices(2))


@every_loader
def test_the_hardest_images_of_an_epoch(name: LoaderName, train: Feed, data: Beton, opened: Opener) -> None:
    feed = dataclasses.replace(train, share=0.5)
    losses = np.random.default_rng(1).random(IMAGES).astype(np.float32)
    with opened(name, feed).epoch(2, start=1, losses=losses) as batches:
        expect(list(batches), data, feed.indices(2, 1, losses))


@every_loader
def test_evaluation_sees_every_image_once_in_order(name: LoaderName, train: Feed, data: Beton, opened: Opener) -> None:
    feed = dataclasses.replace(train, train=False)
    with opened(name, feed).epoch(0) as batches:
        kept = list(batches)
    assert [len(batch.labels) for batch in kept] == [len(batch.indices) for batch in kept] == [16] * 12 + [11]
    assert np.array_equal(np.concatenate([batch.indices for batch in kept]), np.arange(IMAGES))
    assert torch.equal(torch.cat([batch.images for batch in kept]), torch.from_numpy(data.images).permute(0, 3, 1, 2))
    assert torch.equal(torch.cat([batch.labels for batch in kept]), torch.from_numpy(data.labels))


@every_loader
def test_leaving_early_leaves_nothing_running(name: LoaderName, train: Feed, data: Beton, opened: Opener) -> None:
    loader = opened(name, train)
    for epoch in range(4):
        with loader.epoch(epoch) as batches:
            first = next(batches)
        assert next(batches, None) is None
        expect([first], data, train.indices(epoch)[:1])
    with contextlib.suppress(KeyboardInterrupt), loader.epoch(0) as batches:
        next(batches)
        raise KeyboardInterrupt


@every_loader
def test_a_file_that_does_not_fit_is_refused_in_one_line(name: LoaderName, train: Feed, opened: Opener) -> None:
    with pytest.raises(UserError, match="holds 203 images where 202 were expected"):
        opened(name, dataclasses.replace(train, images=202))


@every_loader
def test_a_truncated_file_is_refused_in_one_line(name: LoaderName, train: Feed, opened: Opener, tmp_path: Path) -> None:
    damaged = tmp_path / "train.beton"
    damaged.write_bytes(train.path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"not a usable \.beton file") as refusal:
        opened(name, dataclasses.replace(train, path=damaged))
    assert "\n" not in str(refusal.value)


@needs_ffcv
def test_auto_takes_ffcv_where_it_is_installed(train: Feed, opened: Opener) -> None:
    assert opened("auto", train).name == "ffcv"


def test_without_ffcv_auto_takes_resident(train: Feed, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cifarfast.loaders.ffcv_loader", None)
    assert opened("auto", dataclasses.replace(train, seed=7)).name == "resident"


@pytest.mark.parametrize(
    ("name", "remedy"), [("ffcv", "libturbojpeg0-dev"), ("torchvision", "pip install torchvision")]
)
def test_a_named_loader_that_is_not_installed_says_how_to_install_it(
    name: LoaderName, remedy: str, train: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"cifarfast.loaders.{name}_loader", None)
    with pytest.raises(UserError, match=f"the {name} loader cannot be used .*{remedy}.*--loader resident"):
        open_loader(name, train, device=CPU, workers=None, augmentation=None, mean=MEAN)


def test_an_unknown_loader_is_refused(train: Feed) -> None:
    with pytest.raises(ValueError, match="loader must be auto, ffcv, resident or torchvision, not 'dali'"):
        open_loader("dali", train, device=CPU, workers=None, augmentation=None, mean=MEAN)  # type: ignore[arg-type]


def test_an_ffcv_that_cannot_be_imported_leaves_the_threads_alone(tmp_path: Path) -> None:
    (tmp_path / "ffcv").mkdir()
    (tmp_path / "ffcv" / "__init__.py").write_text(
        "import torch\ntorch.set_num_threads(1)\nraise ImportError('libGL.so.1')"
    )
    code = """if True:
        import torch
        torch.set_num_threads(2)
        try:
            import cifarfast.loaders.ffcv_loader
        except ImportError as error:
            print(error, torch.get_num_threads())
    """
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split()[-1] == "2"
