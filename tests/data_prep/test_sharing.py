"""A folder that several people use: two who convert into it, and one who reads while another converts."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarfast import setup
from cifarfast.config import RunConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import check_folder, read_manifest
from cifarfast.errors import UserError
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.setup import Setup, set_up
from data_prep import convert as module
from data_prep.convert import convert
from data_prep.sources import open_source
from data_prep.sources.base import Source
from data_prep.sources.synthetic import Synthetic
from tests.data_prep.conftest import ROOT, Command, write_images

NEW = Synthetic.parse("synthetic:20,20")


@pytest.fixture
def old(tmp_path: Path) -> Source:
    """As many images as `NEW` has, but others."""
    return open_source(str(write_images(tmp_path / "tree")), cache=tmp_path, any_count=False)


@pytest.fixture
def out(tmp_path: Path, old: Source, without_ffcv: None) -> Path:
    convert(old, tmp_path / "out")
    return tmp_path / "out"


def opened(out: Path) -> Setup:
    """The folder as training opens it."""
    return set_up(
        RunConfig(
            data=out, recipe=Recipe(batch_size=20), runtime=Runtime(device="cpu", loader="resident"), verify=False
        )
    )


def images(run: Setup) -> torch.Tensor:
    """(40, 3, 32, 32), of both splits, in an order that depends on the seed alone."""
    with run.train_loader.epoch(0) as train, run.test_loader.epoch(0) as test:
        return torch.cat([batch.images for batches in (train, test) for batch in batches])


def test_the_second_of_two_conversions_is_refused_and_the_first_is_whole(tmp_path: Path, to_ffcv: Command) -> None:
    line = [sys.executable, "-m", "data_prep.to_ffcv", "--source", "synthetic:8000,20", "--out", str(tmp_path / "out")]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.train.beton.*.tmp")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGSTOP)
        second = to_ffcv("--source", "synthetic:20,20", "--out", "out", "--force")
        os.kill(first.pid, signal.SIGCONT)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
        assert "another conversion into out is running" in second.stderr
        assert first.wait(60) == 0
    assert check_folder(tmp_path / "out", full=True).train.images == 8000
    assert not list(tmp_path.glob("out/.*.tmp"))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("ending", ["done", "half done"])
def test_files_that_are_replaced_while_they_are_opened_are_refused(
    split: str, ending: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes fit and the digests were right: only the manifest tells."""
    loader_of = setup.loader_of

    def convert_first(feed: Any, *rest: Any) -> Any:
        if feed.path.stem == split:
            if ending == "half done":
                monkeypatch.setattr(module, "write_manifest", lambda *_: None)
            convert(NEW, out)
        return loader_of(feed, *rest)

    monkeypatch.setattr(setup, "loader_of", convert_first)
    with pytest.raises(UserError, match="out was converted again while it was being read: start again"):
        opened(out)


def test_a_folder_that_is_converted_there_and_back_while_it_is_opened_is_refused(
    out: Path, old: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is the same as before, to the byte, but the training images are of the one in between."""
    manifest, loader_of = (out / "manifest.json").read_bytes(), setup.loader_of

    def convert_around(feed: Any, *rest: Any) -> Any:
        convert(NEW if feed.path.stem == "train" else old, out)
        return loader_of(feed, *rest)

    monkeypatch.setattr(setup, "loader_of", convert_around)
    with pytest.raises(UserError, match="out was converted again while it was being read: start again"):
        opened(out)
    assert (out / "manifest.json").read_bytes() == manifest


def test_whoever_has_opened_the_folder_keeps_its_images(out: Path) -> None:
    before = images(opened(out))
    run = opened(out)
    convert(NEW, out)
    assert torch.equal(images(run), before)
    assert not torch.equal(images(opened(out)), before)


def test_readers_see_the_old_folder_or_the_new_one(out: Path, old: Source) -> None:
    expected = {read_manifest(out).source_digest: images(opened(out))}
    manifest, _ = convert(NEW, out)
    expected[manifest.source_digest] = images(opened(out))
    over = threading.Event()

    def keep_converting() -> None:
        while not over.wait(0.2):  # without a pause, hardly anybody would get in
            convert(old, out)
            over.wait(0.2)
            convert(NEW, out)

    thread = threading.Thread(target=keep_converting)
    thread.start()
    seen: list[str] = []
    deadline = time.monotonic() + 60
    try:
        while (len(seen) < 10 or len(set(seen)) < 2) and time.monotonic() < deadline:
            with contextlib.suppress(UserError):
                run = opened(out)
                seen.append(run.manifest.source_digest)
                assert torch.equal(images(run), expected[seen[-1]])
    finally:
        over.set()
        thread.join()
    assert set(seen) == set(expected)
    assert np.array_equal(read_beton(out / "train.beton").labels, NEW.load().train.labels)
