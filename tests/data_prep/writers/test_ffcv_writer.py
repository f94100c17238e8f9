"""FFCV's writer when things go wrong: it ends, it says why, it leaves nothing."""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from cifarfast.dataset.beton import read_beton
from cifarfast.errors import UserError
from data_prep.writers import open_writer
from data_prep.writers.ffcv_writer import FFCVMissingError, FFCVWriter
from tests.commands import ROOT
from tests.data_prep.conftest import ffcv_processes
from tests.data_prep.writers.test_raw_writer import draw

pytestmark = pytest.mark.usefixtures("nothing_left")
needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
DATA = draw(20_000)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "x.beton"
    path.touch()
    return path


def once_it_writes(path: Path, deed: Callable[[psutil.Process], None]) -> threading.Thread:
    """Do a deed to FFCV's worker, the youngest of its processes, as soon as it has written its first page."""

    def wait() -> None:
        while path.stat().st_size < 1 << 20:
            time.sleep(0.005)
        deed(max(ffcv_processes(), key=lambda process: (process.create_time(), process.pid)))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@needs_ffcv
def test_a_worker_that_is_killed_is_told(target: Path) -> None:
    deed = once_it_writes(target, psutil.Process.kill)
    with pytest.raises(UserError, match="worker process died with status 9"), FFCVWriter() as ffcv:
        ffcv.write({target: DATA})
    deed.join()


@needs_ffcv
def test_an_error_in_the_worker_is_told(target: Path) -> None:
    with FFCVWriter() as ffcv:
        resource.prlimit(ffcv.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with pytest.raises(UserError, match="File too large") as failed:
            ffcv.write({target: DATA})
    assert "\n" not in str(failed.value)


@needs_ffcv
def test_a_worker_that_stands_still_is_ended(target: Path) -> None:
    with FFCVWriter() as ffcv:

        def stop(worker: psutil.Process) -> None:
            worker.suspend()
            ffcv.stall_seconds = 1

        deed = once_it_writes(target, stop)
        with pytest.raises(UserError, match="wrote nothing for 1 s"):
            ffcv.write({target: DATA})
    deed.join()


@needs_ffcv
def test_a_process_that_does_not_even_read_is_ended(target: Path) -> None:
    with FFCVWriter(stall_seconds=1) as ffcv:
        psutil.Process(ffcv.pid).send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="wrote nothing for 1 s"):
            ffcv.write({target: DATA})


ENDED_BEFORE_THE_TRACKER_KNOWS = """
import os, signal
from multiprocessing import resource_tracker
from data_prep.writers import ffcv_process

register = resource_tracker.register

def end_and_register(name, kind):
    if kind == "shared_memory":
        print("made", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    register(name, kind)

resource_tracker.register = end_and_register
ffcv_process.main()
"""


@needs_ffcv
def test_shared_memory_of_an_ended_process_is_always_known_to_the_tracker(target: Path) -> None:
    data = draw(5)
    process = subprocess.Popen(
        [sys.executable, "-c", ENDED_BEFORE_THE_TRACKER_KNOWS],
        cwd=ROOT,
        env=os.environ | {"TQDM_DISABLE": "1", "NUMBA_DISABLE_JIT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # whoever closes its stdin ends its whole group
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(json.dumps([(str(target), 5)]).encode() + b"\n")
        process.stdin.write(data.images.tobytes() + data.labels.tobytes())
        process.stdin.flush()
        assert process.stdout.read() == b"made\n"
        assert process.wait() == -signal.SIGTERM


@needs_ffcv
def test_leaving_without_writing_ends_it() -> None:
    with FFCVWriter():
        assert ffcv_processes()


def test_an_ffcv_that_cannot_be_imported_is_replaced(
    target: Path, broken_ffcv: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", broken_ffcv["PYTHONPATH"])
    data = draw(5)
    with pytest.raises(FFCVMissingError, match="no libturbojpeg"), FFCVWriter() as ffcv:
        ffcv.write({target: data})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    with open_writer() as write:
        assert write({target: data}) == "cifarfast"
    assert np.array_equal(read_beton(target).images, data.images)
    assert "ffcv cannot be imported (ImportError: no libturbojpeg)" in capsys.readouterr().err


@pytest.mark.usefixtures("without_ffcv")
def test_without_ffcv_ours_writes_and_says_so(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_writer() as write:
        assert write({target: draw(5)}) == "cifarfast"
    assert capsys.readouterr().err.strip() == "ffcv is not installed: writing the same files without it"


@pytest.mark.usefixtures("without_ffcv")
def test_an_ffcv_that_was_named_is_not_replaced(target: Path) -> None:
    with open_writer("ffcv") as write, pytest.raises(UserError, match="ffcv is not installed: install"):
        write({target: draw(5)})
    assert not target.stat().st_size


def test_ours_writes_where_it_is_named(target: Path) -> None:
    data = draw(5)
    with open_writer("cifarfast") as write:
        assert write({target: data}) == "cifarfast"
    assert np.array_equal(read_beton(target).images, data.images)
