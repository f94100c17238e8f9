"""Nothing outlives a command: no process, no shared memory, no temporary file, however the command ended."""

import glob
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.commands import ROOT
from tests.mounts import binding, mounting, require_mounts

MARK = "CIFARFAST_TEST_COMMAND"
PATIENCE = 20.0

Start = Callable[..., "subprocess.Popen[str]"]
needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")


def sockets(folder: Path) -> list[str]:
    """Those of torchvision workers, who make and remove them meanwhile: what vanishes is passed over."""
    return glob.glob(f"{folder}/**/pymp-*/listener-*", recursive=True)  # noqa: PTH207  # Path.glob raises


def family(mark: str) -> list[psutil.Process]:
    """The processes that a command started, in whatever session, itself included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or it is not ours
    return found


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The folder for temporary files; not in `tmp_path`: workers make sockets there, whose paths must be short."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(mark: str, temporary: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a command, with an empty /dev/shm of its own, whose leftovers are looked for when the test is over."""
    shared = tmp_path / "shm"
    shared.mkdir()
    require_mounts()

    def start(module: str, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*mounting(binding(shared, "/dev/shm")), sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {MARK: mark, "TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    yield start
    try:
        wait_until(lambda: not family(mark))
        assert not list(shared.iterdir())
        assert not list(temporary.iterdir())
        assert not list(tmp_path.rglob("*.tmp"))
    finally:
        for process in family(mark):
            process.kill()


def train(start: Start, data: Path, out: Path, loader: str, epochs: int) -> "subprocess.Popen[str]":
    sizes = ("--batch-size", "16", "--train-images", "32", "--test-images", "8", "--epochs", str(epochs), "--no-report")
    return start(
        "cifarfast.train", "--data", data, "--out", out, "--loader", loader, "--workers", "2", "--device", "cpu", *sizes
    )


@pytest.mark.parametrize("loader", [pytest.param("ffcv", marks=needs_ffcv), "resident", "torchvision"])
def test_training_to_its_end(loader: str, start: Start, data: Path, tmp_path: Path) -> None:
    command = train(start, data, tmp_path / "run", loader, epochs=1)
    _, errors = command.communicate(timeout=120)
    assert command.returncode == 0, errors


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loader", [pytest.param("ffcv", marks=needs_ffcv), "torchvision"])
def test_training_that_is_told_to_stop(
    loader: str, signum: signal.Signals, start: Start, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = train(start, data, run, loader, epochs=200)
    wait_until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size, 120)
    os.killpg(command.pid, signum)  # as a terminal does: the workers get it too
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 128 + signum, errors
    assert "--resume" in errors.splitlines()[-1]


def test_training_whose_worker_is_killed(start: Start, mark: str, temporary: Path, data: Path, tmp_path: Path) -> None:
    command = train(start, data, tmp_path / "run", "torchvision", epochs=200)
    wait_until(lambda: sockets(temporary), 120)

    def kill_workers() -> bool:
        for process in family(mark):
            if process.pid != command.pid:
                process.kill()
        return command.poll() is not None

    wait_until(kill_workers, 60)
    _, errors = command.communicate()
    assert command.returncode == 2, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: a worker of the torchvision loader died (killed by SIGKILL)")


def test_training_that_is_killed(start: Start, mark: str, temporary: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = train(start, data, run, "torchvision", epochs=200)
    wait_until(lambda: len(family(mark)) == 3 and sockets(temporary), 120)
    command.kill()
    command.communicate()
    wait_until(lambda: not family(mark))
    for path in run.rglob("*.tmp"):
        path.unlink()  # of a checkpoint; the next --resume does that


def test_a_conversion_to_its_end(start: Start, tmp_path: Path) -> None:
    command = start("data_prep.to_ffcv", "--source", "synthetic:20,10", "--out", tmp_path / "out")
    _, errors = command.communicate(timeout=120)
    assert command.returncode == 0, errors
