"""A disk that is full, a folder that is read-only, a file that goes away: one line, and what was there before stays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cifarfast.runfolder import read_rows
from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic
from tests.commands import ROOT
from tests.mounts import mounting, require_mounts

SMALL = Synthetic.parse("synthetic:20,10")


@pytest.fixture(autouse=True)
def _mounts() -> None:
    require_mounts()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk") / "converted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)  # our own writer: the same bytes, in less time
        convert(SMALL, folder)
    return folder


def on_a_disk(size: str, before: Path, after: Path, *command: str, then: str = "true") -> tuple[int, list[str]]:
    """Run a command beside `disk`, a file system of `size` that holds a copy of `before`; `then` may remount it.

    Returns exit code and lines on stderr. `after` is a copy of the disk as the command left it.
    """
    disk = after.parent / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={size} none "{disk}" && cp -r "{before}/." "{disk}" && {then.format(disk=disk)}'
    keep = f'"$@"; code=$?; cp -r "{disk}" "{after}"; exit $code'
    ended = subprocess.run(
        [*mounting(script), "sh", "-c", keep, "sh", sys.executable, *command],
        cwd=after.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stderr.splitlines()


def error(code: int, lines: list[str]) -> str:
    """The one line of error, the last of all, of a command that a user can mend."""
    assert code == 2, lines
    assert [line for line in lines if line.startswith(("error", "Traceback"))] == lines[-1:]
    return lines[-1]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


CONVERT = ("-m", "data_prep.to_ffcv", "--source", "synthetic:4000,10", "--out", "disk", "--force")


def test_a_conversion_onto_a_disk_that_is_too_small(converted: Path, tmp_path: Path) -> None:
    line = error(*on_a_disk("40m", converted, tmp_path / "after", *CONVERT))
    assert "make room" in line
    assert content(tmp_path / "after") == content(converted)


def test_a_disk_that_fills_while_a_conversion_writes(converted: Path, tmp_path: Path) -> None:
    """The free space is looked at before; here somebody else takes it in between."""
    greedy = (
        "from cifarfast import door; from data_prep import convert, to_ffcv\n"
        "convert._check_space = lambda *_: None\n"
        "door.run(to_ffcv.main)\n"
    )
    line = error(*on_a_disk("40m", converted, tmp_path / "after", "-c", greedy, *CONVERT[2:]))
    assert "No space left on device" in line or "nothing was converted" in line
    assert content(tmp_path / "after") == content(converted)


def test_a_conversion_into_a_read_only_folder(converted: Path, tmp_path: Path) -> None:
    then = 'mount -o remount,ro "{disk}"'
    line = error(*on_a_disk("80m", converted, tmp_path / "after", *CONVERT, then=then))
    assert "Read-only file system" in line
    assert "choose another --out" in line
    assert content(tmp_path / "after") == content(converted)


def train(loader: str, *arguments: str) -> tuple[str, ...]:
    sizes = ("--batch-size", "10", "--train-images", "20", "--test-images", "10", "--epochs", "3")
    return ("-m", "cifarfast.train", "--device", "cpu", "--loader", loader, *sizes, *arguments)


def test_training_whose_disk_fills_keeps_its_epochs(converted: Path, tmp_path: Path) -> None:
    """There is room for one checkpoint of 79 MB and not for two."""
    before = tmp_path / "empty"
    before.mkdir()
    line = error(
        *on_a_disk(
            "120m", before, tmp_path / "after", *train("resident", "--data", str(converted), "--out", "disk/run")
        )
    )
    assert "No space left on device" in line
    run = tmp_path / "after" / "run"
    assert (run / "metrics.jsonl").read_bytes().endswith(b"\n")
    assert 1 <= len(read_rows(run)) <= 3  # a checkpoint is written while training goes on
    assert len(list((run / "checkpoints").iterdir())) == 1  # the first one, and no temporary file


def test_training_into_a_read_only_folder(converted: Path, tmp_path: Path) -> None:
    line = error(
        *on_a_disk(
            "40m", converted, tmp_path / "after", *train("resident", "--data", "disk", "--out", "disk/run"),
            then='mount -o remount,ro "{disk}"',
        )
    )  # fmt: skip
    assert "Read-only file system" in line


@pytest.mark.parametrize("loader", ["ffcv", "resident", "torchvision"])
def test_data_that_goes_away_after_the_start_is_not_missed(loader: str, converted: Path, tmp_path: Path) -> None:
    data, run = shutil.copytree(converted, tmp_path / "data"), tmp_path / "run"
    if loader == "ffcv":
        pytest.importorskip("ffcv")
    # In the process itself, at the first step, because from outside the moment is hard to meet.
    script = (
        "import os, shutil, sys; from pathlib import Path; from cifarfast import door, step, train\n"
        "def remove(self, *args, **kwargs):\n"
        "    step.TrainStep.__call__ = once\n"
        f"    os.truncate({str(data / 'train.beton')!r}, 0); shutil.rmtree({str(data)!r})\n"
        "    return once(self, *args, **kwargs)\n"
        "once, step.TrainStep.__call__ = step.TrainStep.__call__, remove\n"
        "door.run(train.main)\n"
    )
    arguments = ("--data", str(data), "--out", str(run), "--workers", "1")
    ended = subprocess.run(
        [sys.executable, "-c", script, *train(loader)[2:], *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (run / "model.safetensors").exists()


def test_a_run_folder_that_is_removed_ends_the_run_in_one_line(converted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = (
        "import shutil; from cifarfast import door, loop, train\n"
        "def remove(*args, **kwargs):\n"
        f"    shutil.rmtree({str(run)!r})\n"
        "    return evaluate(*args, **kwargs)\n"
        "evaluate, loop.evaluate = loop.evaluate, remove\n"
        "door.run(train.main)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *train("resident", "--data", str(converted), "--out", str(run))[2:]],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    line = error(ended.returncode, ended.stderr.splitlines())
    assert str(run) in line
