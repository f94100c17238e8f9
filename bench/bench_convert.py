"""The conversion as a user runs it: the whole command, from the source to the renamed files."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bench.conftest import Measure
from cifarfast.dataset.manifest import read_manifest

SOURCE = os.environ.get("CIFAR10_SOURCE", "synthetic:8192,1024")


@pytest.mark.benchmark(group="convert")
def bench_convert(measure: Measure, tmp_path: Path) -> None:
    """`$CIFAR10_SOURCE`, else a small synthetic set."""
    line = [sys.executable, "-m", "data_prep.to_ffcv", "--source", SOURCE, "--out", str(tmp_path / "out"), "--force"]

    def convert() -> None:
        subprocess.run(line, check=True, capture_output=True)

    convert()
    manifest = read_manifest(tmp_path / "out")
    measure(convert, images=manifest.train.images + manifest.test.images, rounds=3, kind=manifest.kind)
    # ru_maxrss is that of the largest of all child processes so far; Linux counts KiB.
    print(f"largest process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} MiB")
