"""The command as people meet it: what it prints, how it exits, what it leaves."""

import importlib.util
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from cifarfast.dataset.manifest import check_folder
from tests.data_prep.conftest import (
    ROOT,
    Command,
    Records,
    binary_files,
    ffcv_processes,
    pickled_batch,
    python_files,
    write_archive,
    write_images,
)

SYNTHETIC = ("--source", "synthetic:20,10")


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one line of error, after the lines of progress."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if not line.startswith(("reading ", "drawing "))]
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    for word in words:
        assert word in errors[0]


def test_convert_again_verify_and_damage(to_ffcv: Command, tmp_path: Path) -> None:
    first = to_ffcv(*SYNTHETIC)
    assert first.returncode == 0, first.stderr
    assert "20 train and 10 test images, kind synthetic" in first.stdout
    assert "ffcv cannot be imported" in first.stderr
    assert "up to date" in to_ffcv(*SYNTHETIC).stdout
    assert "is ok" in to_ffcv("--verify").stdout
    path = tmp_path / "data" / "cifar10" / "test.beton"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    refused(to_ffcv("--verify"), "test.beton is damaged", "--force")
    assert to_ffcv(*SYNTHETIC, "--force").returncode == 0
    assert "is ok" in to_ffcv("--verify").stdout


def test_the_source_comes_from_the_environment(to_ffcv: Command) -> None:
    assert "kind synthetic" in to_ffcv(CIFAR10_SOURCE="synthetic:20,10").stdout


def test_counts_need_a_flag(to_ffcv: Command, binary_archive: Path) -> None:
    refused(to_ffcv("--source", str(binary_archive)), "holds 20 images, not 10000", "--any-count")
    result = to_ffcv("--source", str(binary_archive), "--any-count")
    assert "100 train and 20 test images, kind cifar10, not the official batches" in result.stdout


def test_bad_sources_end_in_one_line_and_spoil_nothing(to_ffcv: Command, tmp_path: Path, records: Records) -> None:
    assert to_ffcv(*SYNTHETIC).returncode == 0
    out = tmp_path / "data" / "cifar10"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    files = binary_files(records)
    evil = pickled_batch(records["test_batch"]).replace(b"numpy\ndtype", b"posix\nsystem")
    link = tarfile.TarInfo("cifar-10-batches-bin/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    whole = write_archive(tmp_path / "whole.tar.gz", files).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar.gz").write_text("not an archive")
    write_archive(tmp_path / "evil.tar.gz", python_files(records) | {"cifar-10-batches-py/test_batch": evil})
    write_archive(tmp_path / "link.tar.gz", files, [link])
    tree = write_images(tmp_path / "tree")
    (tree / "train" / "cat" / "0.png").write_bytes(b"no image")
    for source, words in {
        "nowhere": "does not exist",
        "cut.tar.gz": "truncated or damaged",
        "text.tar.gz": "not a sound .tar.gz",
        "evil.tar.gz": "posix.system",
        "link.tar.gz": "not a plain file",
        "tree": "0.png cannot be read",
        "~nobody-of-this-name/x.tar.gz": "unknown user",
        "": "--source is empty",
    }.items():
        refused(to_ffcv("--source", source, "--any-count"), words)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_paths_that_are_no_text(to_ffcv: Command, tmp_path: Path) -> None:
    write_images(tmp_path / "tree\udcff")
    for result in (to_ffcv("--source", "tree\udcff", "--out", "out\udcff") for _ in range(2)):
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("out\\udcff")
    assert "up to date" in result.stdout
    assert check_folder(tmp_path / "out\udcff", full=True).source == "tree\\udcff"
    refused(to_ffcv("--verify", "--out", "\x1b[2Jout\udcff"), "\\x1b[2Jout\\udcff holds no manifest.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--source", "synthetic:0,10"), "synthetic:TRAIN,TEST"),
        (("--verify", "--force"), "--verify converts nothing"),
        (("--verify",), "holds no manifest.json"),
        (("--no-such-flag",), "--help"),
        ((*SYNTHETIC, "--out", "/proc/nowhere"), "choose another --out"),
    ],
)
def test_bad_commands(arguments: tuple[str, ...], words: str, to_ffcv: Command) -> None:
    refused(to_ffcv(*arguments), words)


def test_help_imports_nothing_heavy(to_ffcv: Command) -> None:
    result = to_ffcv("--help")
    assert result.returncode == 0
    for flag in ("--source", "--out", "--force", "--verify", "--any-count"):
        assert flag in result.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "data_prep.to_ffcv", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    modules = {line.rsplit("|", 1)[-1].strip() for line in imported.splitlines()}
    assert not modules & {"torch", "ffcv", "numpy", "PIL", "numba"}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_half_way_and_run_again(signum: signal.Signals, tmp_path: Path, to_ffcv: Command) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_prep.to_ffcv", "--source", "synthetic:8000,20", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in out.glob(".train.beton.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ffcv_processes()
    process.send_signal(signum)
    assert process.wait(20) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signum]
    assert bool(list(out.glob(".*.tmp"))) == (signum == signal.SIGKILL)
    assert to_ffcv(*SYNTHETIC, "--out", "out").returncode == 0
    assert check_folder(out, full=True).kind == "synthetic"
    assert not list(out.glob(".*.tmp"))


WAITING = """
import sys, time
from cifarfast import door
from data_prep import convert, to_ffcv
from data_prep.sources.synthetic import Synthetic
from data_prep.writers.ffcv_writer import FFCVWriter

def wait(*_):
    print("here", flush=True)
    time.sleep(60)

"""
STAGES = {"loading": "Synthetic.load", "writing": "FFCVWriter.write", "verifying": "convert._described"}
CONVERT = ("--source", "synthetic:30,10", "--out", "out")


def waiting(tmp_path: Path, *places: str) -> "subprocess.Popen[str]":
    """The command, after it has come to the first of the places in its code at which it is to wait."""
    script = WAITING + "".join(f"{place} = wait\n" for place in places) + "door.run(to_ffcv.main)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *CONVERT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
@pytest.mark.parametrize(("signum", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_any_stage_leaves_the_folder_as_it_was(
    stage: str, signum: signal.Signals, word: str, tmp_path: Path, to_ffcv: Command
) -> None:
    assert to_ffcv(*SYNTHETIC, "--out", "out").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with waiting(tmp_path, STAGES[stage]) as process:
        process.send_signal(signum)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signum
    assert [line for line in errors.splitlines() if line.startswith(("error", "Traceback"))] == [f"error: {word}"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_the_clean_up(
    signum: signal.Signals, tmp_path: Path, to_ffcv: Command
) -> None:
    with waiting(tmp_path, "FFCVWriter.write", "FFCVWriter.__exit__") as process:
        process.send_signal(signum)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signum)
        assert process.wait(5) == -signum  # which a shell calls 130 or 143
    assert to_ffcv(*SYNTHETIC, "--out", "out").returncode == 0
    assert not list((tmp_path / "out").glob(".*.tmp"))
