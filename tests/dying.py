"""Runs that are killed where it hurts most: SIGKILL, from inside, at a chosen call of a chosen function.

Each run is a process of its own, forked from one that has imported everything and computed nothing yet.
"""

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from cifarfast.config import RunConfig, run_config
from cifarfast.studying.plan import Plan

# Where the process may die: the function, and whether before or after its body.
KILL_POINTS = {
    "in the middle of an epoch": ("cifarfast.step", "TrainStep.__call__", "before"),
    "with the epoch trained, before its evaluation": ("cifarfast.loop", "evaluate", "before"),
    "during the evaluation": ("cifarfast.evaluation", "Statistics.add", "before"),
    "at the end of an epoch, before its checkpoint": ("cifarfast.runfolder", "RunFolder.append", "after"),
    "while a checkpoint is being written": ("cifarfast.tensorfile", "save_file", "half"),
    "when a checkpoint has its name, before the old one is gone": ("cifarfast.checkpoint", "write_tensors", "after"),
    "before the summary": ("cifarfast.runfolder", "RunFolder.write_summary", "before"),
}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "cifarfast.training",
        "cifarfast.loaders.resident",
        "cifarfast.loaders.ffcv_loader",
        "cifarfast.loaders.torchvision_loader",
        "tests.tiny",
    ]
)


def run_in_a_process(
    out: Path,
    config: RunConfig,
    *,
    resume: bool = False,
    die_at: tuple[str, int] | None = None,
    checkpoint_minutes: float = 10.0,
    tiny: bool = True,
) -> int:
    """Train, or go on; returns the exit code: -9 if the process died when it came to a point for the n-th time.

    Args:
        out, config, checkpoint_minutes: as `cifarfast.fit` has them.
        resume: go on with the run in `out`.
        die_at: which of the kill points, and at which call.
        tiny: with the tiny network, so that what takes time is not the arithmetic.
    """
    return _exit_code(_run, out, config, resume, die_at, checkpoint_minutes, tiny)


def study_in_a_process(plan: Plan, *, die_at: tuple[str, int] | None = None, checkpoint_minutes: float = 10.0) -> int:
    """Train what a study is still missing, with the tiny network; otherwise as `run_in_a_process`."""
    return _exit_code(_study, plan, die_at, checkpoint_minutes)


def _exit_code(function: Callable[..., None], *args: object) -> int:
    process = _context.Process(target=function, args=args)
    process.start()
    process.join(timeout=240)
    assert process.exitcode is not None
    return process.exitcode


def _run(
    out: Path, config: RunConfig, resume: bool, die_at: tuple[str, int] | None, checkpoint_minutes: float, tiny: bool
) -> None:
    import cifarfast

    _prepare(die_at, tiny=tiny)
    if resume:
        cifarfast.resume(out, checkpoint_minutes=checkpoint_minutes)
    else:
        cifarfast.fit(**vars(run_config(config)), out=out, checkpoint_minutes=checkpoint_minutes)


def _study(plan: Plan, die_at: tuple[str, int] | None, checkpoint_minutes: float) -> None:
    from cifarfast.studying.course import run_study

    _prepare(die_at, tiny=True)
    run_study(plan, checkpoint_minutes=checkpoint_minutes)


def _prepare(die_at: tuple[str, int] | None, *, tiny: bool) -> None:
    import torch

    from cifarfast import setup
    from tests.tiny import build_tiny

    # A worker of a loader notices the death of the process that forked it; a fork server would stay alive.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)  # two would wait for each other where others use the cores, far longer than they compute
    if tiny:
        vars(setup)["build_model"] = build_tiny
    if die_at is not None:
        point, count = die_at
        _arm(*KILL_POINTS[point], count)


def _arm(module: str, name: str, when: str, count: int) -> None:
    """Replace a function by one that kills this process at its `count`-th call."""
    owner: Any = import_module(module)
    *path, attribute = name.split(".")
    owner = functools.reduce(getattr, path, owner)
    function: Callable[..., Any] = getattr(owner, attribute)
    calls = 0

    @functools.wraps(function)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == count and when == "half":
            os.truncate(args[1], args[1].stat().st_size // 2)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, deadly)
