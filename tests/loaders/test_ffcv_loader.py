import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarfast.dataset.beton import IMAGE_SHAPE
from cifarfast.errors import UserError
from cifarfast.loaders import Feed

pytest.importorskip("cifarfast.loaders.ffcv_loader", exc_type=ImportError)

from ffcv.loader.epoch_iterator import EpochIterator

from cifarfast.loaders import ffcv_loader
from cifarfast.loaders.ffcv_loader import FfcvLoader
from tests.loaders.conftest import CPU, IMAGES

pytestmark = pytest.mark.usefixtures("left_as_found")


@pytest.fixture(scope="module")
def feed(path: Path) -> Feed:
    return Feed(path=path, images=IMAGES, batch_size=16, train=True)


@pytest.fixture(scope="module")
def loader(feed: Feed) -> FfcvLoader:
    return FfcvLoader(feed, device=CPU, workers=1, stall_seconds=5.0)


# In a process of its own, because FFCV's writer forks.
WRITE = """
import sys, numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
with np.load(sys.argv[1]) as arrays:
    images, labels = arrays["images"], arrays["labels"]
fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
DatasetWriter(sys.argv[2], fields, num_workers=2).from_indexed_dataset(list(zip(images, labels)))
"""


def test_reads_what_ffcv_wrote_and_needs_no_file_once_open(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (3000, *IMAGE_SHAPE), dtype=np.uint8)  # more than a page
    labels = random.integers(0, 10, 3000, dtype=np.int64)
    np.savez(tmp_path / "arrays.npz", images=images, labels=labels)
    path = tmp_path / "test.beton"
    subprocess.run(
        [sys.executable, "-c", WRITE, tmp_path / "arrays.npz", path], check=True, capture_output=True, timeout=120
    )
    loader = FfcvLoader(Feed(path=path, images=3000, batch_size=512, train=False), device=CPU)
    os.truncate(path, 0)
    with loader.epoch(0) as batches:
        kept = list(batches)
    assert torch.equal(torch.cat([batch.images for batch in kept]).permute(0, 2, 3, 1), torch.from_numpy(images))
    assert torch.equal(torch.cat([batch.labels for batch in kept]), torch.from_numpy(labels))


def test_an_exception_in_ffcvs_thread_reaches_the_caller(loader: FfcvLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    run_pipeline = EpochIterator.run_pipeline

    def failing(self: Any, number: int, *rest: Any) -> Any:
        if number == 7:
            raise MemoryError("no room")
        return run_pipeline(self, number, *rest)

    monkeypatch.setattr(EpochIterator, "run_pipeline", failing)
    begun = time.monotonic()
    with loader.epoch(0) as batches:
        for _ in range(7):
            next(batches)
        with pytest.raises(UserError, match=r"FFCV's loading thread failed.*no room.*--loader resident") as failure:
            next(batches)
    assert isinstance(failure.value.__cause__, MemoryError)
    assert time.monotonic() - begun < 3.0


def test_a_stalled_thread_is_reported_and_given_up(loader: FfcvLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(EpochIterator, "run_pipeline", lambda *_: release.wait(60))
    monkeypatch.setattr(ffcv_loader, "_STOP_SECONDS", 0.1)
    monkeypatch.setattr(loader, "_stall_seconds", 0.3)
    with (
        pytest.raises(UserError, match=r"no batch of .*train.beton for 0.3 s: take --loader resident"),
        loader.epoch(0) as batches,
    ):
        next(batches)
    release.set()


def test_a_slow_consumer_is_not_a_stall(loader: FfcvLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_stall_seconds", 0.3)
    with loader.epoch(0) as batches:
        next(batches)
        time.sleep(0.6)
        assert len(list(batches)) == 11


def test_leaving_while_the_thread_waits_for_room_takes_no_time(loader: FfcvLoader) -> None:
    with loader.epoch(0) as batches:
        next(batches)
        time.sleep(0.1)  # the ring is full now
        begun = time.monotonic()
    assert time.monotonic() - begun < 0.3


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (10_000, len(os.sched_getaffinity(0)))])
def test_workers_are_clamped_to_what_works(asked: int, given: int, feed: Feed) -> None:
    loader = FfcvLoader(feed, device=CPU, workers=asked)
    assert loader.workers == given
    with loader.epoch(0) as batches:
        assert len(list(batches)) == 12


def test_a_fresh_process_keeps_its_thread_count_and_hears_no_warning(path: Path) -> None:
    code = f"""
import threading, torch
torch.set_num_threads(3)
from pathlib import Path
from cifarfast.loaders.ffcv_loader import FfcvLoader
from cifarfast.loaders.base import Feed
feed = Feed(path=Path({str(path)!r}), images={IMAGES}, batch_size=16, train=True)
counts = [torch.get_num_threads()]
with FfcvLoader(feed, device=torch.device("cpu"), workers=1).epoch(0) as batches:
    counts += [torch.get_num_threads() for _ in batches]
thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))  # as autograd's threads do
thread.start()
thread.join()
print(set(counts), len(counts))
"""
    ended = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("{3} 14\n", "")


def test_loaders_are_collected_in_silence(feed: Feed) -> None:
    # FFCV alters a type that numba shares; compiled code filed under that type cannot be taken down again.
    loaders = [FfcvLoader(feed, device=CPU, workers=1) for _ in range(2)]
    for loader in loaders:
        with loader.epoch(0) as batches:
            next(batches)
    unheard: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unheard.append
    try:
        del loaders, loader, batches
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert not unheard
