"""A small `.beton` file, and loaders over it that are opened once, because FFCV compiles for each."""

import functools
import importlib.util
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarfast.dataset.beton import IMAGE_SHAPE, Beton
from cifarfast.loaders import Feed, Loader, LoaderName, open_loader
from data_prep.writers.raw_writer import write_raw

IMAGES = 203
MEAN = (0.4914, 0.4822, 0.4465)
CPU = torch.device("cpu")

needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")

Opener = Callable[[LoaderName, Feed], Loader]


@pytest.fixture(scope="session")
def data() -> Beton:
    random = np.random.default_rng(1)
    return Beton(
        random.integers(0, 256, (IMAGES, *IMAGE_SHAPE), dtype=np.uint8),
        random.integers(0, 10, IMAGES, dtype=np.int64),
    )


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory, data: Beton) -> Path:
    path = tmp_path_factory.mktemp("loaders") / "train.beton"
    write_raw(path, data)
    return path


@pytest.fixture(scope="session")
def opened() -> Opener:
    """Opens a loader on the CPU, without augmentation; the same loader for the same arguments."""

    @functools.cache
    def open_once(name: LoaderName, feed: Feed) -> Loader:
        return open_loader(name, feed, device=CPU, workers=2, augmentation=None, mean=MEAN)

    return open_once


@pytest.fixture
def left_as_found() -> Iterator[None]:
    """Fails a test that leaves threads or child processes, or moves the caller's settings or generators."""
    living, state = _living(), _state()
    yield
    assert _state() == state
    deadline = time.monotonic() + 3.0
    while (left := _living() - living) and time.monotonic() < deadline:
        time.sleep(0.01)  # multiprocessing's own queue threads end just after the processes they fed
    assert not left


def _living() -> set[object]:
    return {*threading.enumerate(), *multiprocessing.active_children()}


def _state() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002, the global generator is the point
    return torch.get_num_threads(), torch.get_rng_state().tolist(), str(numpy_state)
