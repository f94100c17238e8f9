"""Small data in the real formats, and the command that converts it."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from data_prep.sources.base import CIFAR10_CLASSES
from data_prep.sources.records import BATCHES

ROOT = Path(__file__).parents[2]
PER_BATCH = 20

Records = dict[str, npt.NDArray[np.uint8]]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def records() -> Records:
    """The records (N, 3073) of six small batches: every label in each."""
    random = np.random.default_rng(3)
    batches = {}
    for batch in BATCHES:
        batches[batch] = random.integers(0, 256, (PER_BATCH, 3073), dtype=np.uint8)
        batches[batch][:, 0] = random.permutation(np.arange(PER_BATCH) % 10)
    return batches


def expected(records: Records, batches: Sequence[str]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Images and labels of the records, one pixel at a time as the format is described."""
    rows = np.concatenate([records[batch] for batch in batches])
    images = np.empty((len(rows), 32, 32, 3), np.uint8)
    for y in range(32):
        for x in range(32):
            for channel in range(3):
                images[:, y, x, channel] = rows[:, 1 + 1024 * channel + 32 * y + x]
    return images, [int(row[0]) for row in rows]


def binary_files(records: Records) -> dict[str, bytes]:
    """The files of the binary version, by their names in its archive."""
    files = {f"cifar-10-batches-bin/{batch}.bin": rows.tobytes() for batch, rows in records.items()}
    return files | {"cifar-10-batches-bin/batches.meta.txt": ("\n".join(CIFAR10_CLASSES) + "\n\n").encode()}


def pickled_batch(rows: npt.NDArray[np.uint8], protocol: int = 2) -> bytes:
    """One batch of the python version."""
    batch = {
        b"batch_label": b"a batch",
        b"labels": [int(label) for label in rows[:, 0]],
        b"data": np.ascontiguousarray(rows[:, 1:]),
        b"filenames": [b"name.png"] * len(rows),
    }
    return pickle.dumps(batch, protocol=protocol)


def python_files(records: Records, protocol: int = 2) -> dict[str, bytes]:
    """The files of the python version, by their names in its archive."""
    files = {f"cifar-10-batches-py/{batch}": pickled_batch(rows, protocol) for batch, rows in records.items()}
    meta = {b"label_names": [name.encode() for name in CIFAR10_CLASSES], b"num_vis": 3072}
    return files | {"cifar-10-batches-py/batches.meta": pickle.dumps(meta, protocol=protocol)}


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """The files as a folder; returns `root`."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_archive(path: Path, files: Mapping[str, bytes], extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    """The files, then the members `extra` of zeros, as a `.tar.gz`; returns `path`."""
    with gzip.open(path, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def write_images(root: Path, per_class: int = 2, classes: Sequence[str] = CIFAR10_CLASSES) -> Path:
    """An image tree; the pixels of an image follow from its class and number."""
    for split in ("train", "test"):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                pixels = np.random.default_rng([label, i]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def binary_archive(tmp_path: Path, records: Records) -> Path:
    return write_archive(tmp_path / "small.tar.gz", binary_files(records))


@pytest.fixture
def without_ffcv(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where FFCV is not installed, which also saves its seconds of import."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture(scope="session")
def broken_ffcv(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `import ffcv` fails."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "ffcv.py").write_text("raise ImportError('no libturbojpeg')\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.fixture
def to_ffcv(tmp_path: Path, broken_ffcv: dict[str, str]) -> Command:
    """Runs the command in a folder of its own, without FFCV; relative paths are in `tmp_path`."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "data_prep.to_ffcv", *arguments],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "CIFAR10_SOURCE"}
            | broken_ffcv
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def ffcv_processes() -> list[psutil.Process]:
    """The processes in which FFCV's writer runs, workers included."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if "data_prep.writers.ffcv_process" in (process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails a test that leaves a process of FFCV's writer or shared memory behind."""
    before = _left()
    yield
    deadline = time.monotonic() + 5
    while (left := _left() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _left() -> set[object]:
    return {*ffcv_processes(), *Path("/dev/shm").glob("psm_*")}
