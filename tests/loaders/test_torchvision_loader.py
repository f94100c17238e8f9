import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import binomtest, chisquare

from cifarfast.dataset.beton import Beton
from cifarfast.errors import UserError
from cifarfast.loaders import Batch, Feed
from cifarfast.loaders.threads import StalledError
from cifarfast.loaders.torchvision_loader import TorchvisionLoader
from cifarfast.patience import STALL_SECONDS
from cifarfast.recipe import Augmentation
from cifarfast.stopping import StopSignals
from data_prep.writers.raw_writer import write_raw
from tests.loaders.conftest import CPU, IMAGES, MEAN

pytestmark = pytest.mark.usefixtures("left_as_found")

COPIES = 4096
FILL = (1, 2, 3)
CROP_ONLY = Augmentation(flip_probability=0.0, cutout_size=0)
FLIP_ONLY = Augmentation(crop_padding=0, cutout_size=0)
HOLE_ONLY = Augmentation(crop_padding=0, flip_probability=0.0)

Images = npt.NDArray[np.uint8]


def original() -> Images:
    """(32, 32, 3): every pixel says where it is, and none has the fill's colour."""
    y, x = np.mgrid[0:32, 0:32]
    return np.stack([100 + y, 100 + x, np.full_like(y, 200)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many copies of `original`."""
    path = tmp_path_factory.mktemp("torchvision") / "train.beton"
    write_raw(path, Beton(np.repeat(original()[None], COPIES, axis=0), np.zeros(COPIES, np.int64)))
    return path


def augmented(copies: Path, augmentation: Augmentation) -> Images:
    """(4096, 32, 32, 3), every copy as training sees it in epoch 0."""
    feed = Feed(path=copies, images=COPIES, batch_size=COPIES, train=True)
    mean = (FILL[0] / 255, FILL[1] / 255, FILL[2] / 255)
    loader = TorchvisionLoader(feed, device=CPU, workers=0, augmentation=augmentation, mean=mean)
    with loader.epoch(0) as batches:
        images: Images = next(batches).images.permute(0, 2, 3, 1).numpy()
    return images


def uniform(draws: Sequence[int] | npt.NDArray[np.int64], values: int) -> bool:
    return bool(chisquare(np.bincount(draws, minlength=values)).pvalue > 1e-3)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_crops_are_cut_from_the_padded_image_at_every_offset_alike(copies: Path, mode: Any, numpy_mode: Any) -> None:
    augmentation = Augmentation(crop_padding=4, padding_mode=mode, flip_probability=0.0, cutout_size=0)
    crops = augmented(copies, augmentation)
    padded = np.pad(original(), ((4, 4), (4, 4), (0, 0)), numpy_mode)
    if mode == "zero":
        padded[(padded == 0).all(axis=-1)] = FILL
    down, right = (crops[:, 16, 16, channel].astype(np.int64) - 100 - 16 + 4 for channel in (0, 1))
    for crop, y, x in zip(crops, down, right, strict=True):
        assert np.array_equal(crop, padded[y : y + 32, x : x + 32])
    assert uniform(down * 9 + right, 81)


def test_half_of_the_images_are_mirrored(copies: Path) -> None:
    images = augmented(copies, FLIP_ONLY)
    mirrored = (images == original()[:, ::-1]).all(axis=(1, 2, 3))
    assert ((images == original()).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert binomtest(int(mirrored.sum()), COPIES).pvalue > 1e-3


def test_the_hole_is_8_by_8_and_anywhere_inside(copies: Path) -> None:
    images = augmented(copies, HOLE_ONLY)
    holes = (images == FILL).all(axis=-1)
    assert ((images == original()) | holes[..., None]).all()
    assert (holes.sum(axis=(1, 2)) == 64).all()
    rows, columns = holes.any(axis=2), holes.any(axis=1)
    assert (rows.sum(axis=1) == 8).all()
    assert (columns.sum(axis=1) == 8).all()
    assert uniform(rows.argmax(axis=1), 25)
    assert uniform(columns.argmax(axis=1), 25)


@pytest.mark.parametrize(("probability", "size"), [(0.25, 5), (0.0, 8), (1.0, 31)])
def test_the_holes_size_and_probability_are_settings(copies: Path, probability: float, size: int) -> None:
    settings = Augmentation(crop_padding=0, flip_probability=0.0, cutout_probability=probability, cutout_size=size)
    areas = (augmented(copies, settings) == FILL).all(axis=-1).sum(axis=(1, 2))
    assert set(np.unique(areas)) <= {0, size**2}
    assert binomtest(int((areas > 0).sum()), COPIES, probability).pvalue > 1e-3


def test_everything_switched_off_leaves_the_image(copies: Path) -> None:
    off = Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
    assert (augmented(copies, off) == original()).all()


def test_a_hole_as_large_as_the_image_is_refused(copies: Path) -> None:
    with pytest.raises(UserError, match="cutout_size must be below 32 with the torchvision loader, not 32"):
        augmented(copies, Augmentation(cutout_size=32))


def test_a_flip_that_alternates_is_refused(copies: Path) -> None:
    with pytest.raises(UserError, match=r"^the torchvision loader flips at random: add --no-alternate-flip [^\n]*$"):
        augmented(copies, Augmentation(alternate_flip=True))


def run(path: Path, *, workers: int, epoch: int = 0, start: int = 0, train: bool = True) -> list[Batch]:
    feed = Feed(path=path, images=IMAGES, batch_size=32, train=train, seed=4)
    loader = TorchvisionLoader(feed, device=CPU, workers=workers, augmentation=Augmentation(), mean=MEAN)
    assert loader.augments == train
    with loader.epoch(epoch, start=start) as batches:
        return list(batches)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and np.array_equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


def test_augmentation_depends_on_the_epoch_but_not_on_workers_or_start(path: Path) -> None:
    whole = run(path, workers=0)
    for workers in (1, 2):
        assert same(whole, run(path, workers=workers))
        assert same(whole[4:], run(path, workers=workers, start=4))
    assert same(whole[4:], run(path, workers=0, start=4))
    ordered = [run_in_file_order(path, epoch) for epoch in (0, 1)]
    assert not torch.equal(*ordered)


def run_in_file_order(path: Path, epoch: int) -> torch.Tensor:
    feed = Feed(path=path, images=IMAGES, batch_size=32, train=True, seed=4)
    order = np.argsort(feed.order(epoch)[:32])
    images = run(path, workers=0, epoch=epoch)[0].images
    return images[torch.from_numpy(order)]


def test_evaluation_is_not_augmented(path: Path, data: Beton) -> None:
    batches = run(path, workers=0, train=False)
    images = torch.cat([batch.images for batch in batches])
    assert torch.equal(images, torch.from_numpy(data.images).permute(0, 3, 1, 2))


def loading(path: Path, *, workers: int, stall_seconds: float = STALL_SECONDS) -> TorchvisionLoader:
    """Loads image by image, so that there is always something left to load."""
    feed = Feed(path=path, images=IMAGES, batch_size=1, train=True)
    return TorchvisionLoader(
        feed, device=CPU, workers=workers, augmentation=None, mean=MEAN, stall_seconds=stall_seconds
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("signum", "stall_seconds", "words"),
    [(signal.SIGKILL, 10.0, "died .killed by SIGKILL"), (signal.SIGSTOP, 1.0, "delivered no batch for 1 s")],
)
def test_a_worker_that_dies_or_stops_is_reported_in_one_line(
    path: Path, workers: int, signum: signal.Signals, stall_seconds: float, words: str
) -> None:
    with loading(path, workers=workers, stall_seconds=stall_seconds).epoch(0) as batches:
        next(batches)
        children = multiprocessing.active_children()
        assert len(children) == workers
        assert children[0].pid is not None
        os.kill(children[0].pid, signum)
        begun = time.monotonic()
        with pytest.raises(UserError, match=f"{words}.*fewer --workers .*--resume") as refusal:
            deque(batches)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - begun < 20.0
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_with_half_a_batch_handed_over_is_reported_as_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's thread then waits for the other half."""
    with loading(path, workers=1).epoch(0) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()

        def wait(*_: object) -> None:
            worker.kill()
            worker.join()
            raise StalledError

        monkeypatch.setattr("cifarfast.loaders.torchvision_loader.receive", wait)
        with pytest.raises(UserError, match=r"died \(killed by SIGKILL"):
            next(batches)


@pytest.mark.parametrize(("error", "reported"), [(MemoryError, UserError), (ZeroDivisionError, ZeroDivisionError)])
def test_what_a_worker_raises_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], reported: type[Exception]
) -> None:
    def fail(_: object) -> None:
        raise error

    loader = loading(path, workers=1)
    monkeypatch.setattr(loader, "_transform", fail)
    with pytest.raises(reported), loader.epoch(0) as batches:
        next(batches)


def test_signals_are_for_the_training_process_alone(path: Path) -> None:
    with StopSignals() as stop, loading(path, workers=2).epoch(0) as batches:
        next(batches)
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            os.kill(process.pid, signal.SIGTERM)
        assert len(list(batches)) == IMAGES - 1
        assert stop.requested is None


def test_a_death_is_never_raised_elsewhere(path: Path) -> None:
    """Not by torch's handler of SIGCHLD: only where a batch is asked for."""
    before = signal.getsignal(signal.SIGCHLD)
    with loading(path, workers=1).epoch(0) as batches:
        next(batches)
        assert signal.getsignal(signal.SIGCHLD) is before
