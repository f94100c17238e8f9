"""From the command to the end of the first optimizer step, in a process of its own."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import device_name
from cifarfast.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.contest(group="start-up", quick=1, full=3, baseline="eager")
@pytest.mark.parametrize("mode", ["eager", "compiled-cold", "compiled-warm"])
def bench_startup(lab: Lab, mode: str) -> Entrant:
    """`python -m cifarfast.train`; torch.compile finds nothing or everything in its cache on the disk."""
    if lab.profile == "quick" and mode != "eager":
        raise UserError("a quick look has no time for compiled starts: --bench-profile full measures them")
    cache = lab.scratch.parent / "compile-cache"  # the warm variant finds what the cold one left
    flags = ["--data", str(lab.folder), "--device", device_name(lab), "--batch-size", str(lab.batch_size)]
    if mode != "eager":
        flags.append("--compile")
    numbers = count()

    def seconds() -> float:
        return first_step_seconds([*flags, "--out", str(lab.scratch / f"run-{next(numbers)}")], cache)

    def once() -> float:
        if mode == "compiled-cold":
            shutil.rmtree(cache, ignore_errors=True)
        elif mode == "compiled-warm" and not cache.exists():
            seconds()
        return seconds()

    return Entrant(once=once, unit=None, warm_up=0, facts={"batch_size": lab.batch_size})


def first_step_seconds(flags: Sequence[str], cache: Path) -> float:
    """Seconds until a training with these flags has taken its first step.

    Args:
        cache: folder of torch.compile's cache.

    Raises:
        UserError: it did not get so far; says why.
    """
    line = [sys.executable, "-m", "bench.first_step", *flags]
    start = time.monotonic()
    done = subprocess.run(
        line,
        cwd=ROOT,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"training did not start ({(done.stderr.splitlines() or ['no reason was given'])[-1]})")
    return float(done.stdout.splitlines()[-1]) - start
