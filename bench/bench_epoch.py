"""Epochs of the production loop on part of the data, by its own stopwatch."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import check_workers, device_name, every_loader
from cifarfast.checkpoint import Checkpoints, Progress
from cifarfast.config import RunConfig
from cifarfast.loaders import LoaderName
from cifarfast.loop import run_epochs
from cifarfast.metrics import EpochRow
from cifarfast.recipe import Recipe
from cifarfast.runfolder import RunFolder
from cifarfast.runtime import Runtime
from cifarfast.schedule import one_cycle
from cifarfast.setup import set_up
from cifarfast.stopwatch import Stopwatch

STEPS = 2
GPU_STEPS = 50
"""There a step is so short that in two of them a loader would hardly have begun."""
TEST_IMAGES = 2
"""Evaluation is no part of an epoch's seconds."""
WARM_UP = 1


@pytest.mark.contest(group="epoch", quick=3, full=4, baseline="torchvision-2")
@every_loader
def bench_epoch(lab: Lab, loader: LoaderName, workers: int | None) -> Entrant:
    """One run a variant; each call is its next epoch, checkpoint included, so that the runs take turns."""
    wanted = STEPS if lab.device.target.type == "cpu" else GPU_STEPS
    steps = min(wanted, max(1, lab.manifest.train.images // lab.batch_size))
    config = RunConfig(
        data=lab.folder,
        # A low rate, because the schedule below grows with the run.
        recipe=Recipe(batch_size=lab.batch_size, max_lr=0.001),
        runtime=Runtime(device=device_name(lab), loader=loader, workers=workers),
        train_images=steps * lab.batch_size,
        test_images=TEST_IMAGES,
        verify=False,
    )
    setup = set_up(config)
    check_workers(setup.train_loader, workers)
    schedule = one_cycle(config.recipe, steps)
    progress, watch = Progress(), Stopwatch(setup.device.synchronize)
    resources = ExitStack()
    folder = resources.enter_context(RunFolder(lab.scratch / "run"))
    waits: list[float] = []

    def keep(row: EpochRow) -> None:
        if row.epoch > WARM_UP:
            waits.append(row.data_wait_percent)

    def once() -> float:
        until = replace(schedule, epochs=progress.epoch + 1)
        with Checkpoints(folder.checkpoints, setup.effective(compiled=False), minutes=60) as checkpoints:
            run_epochs(setup, until, progress, watch, folder, checkpoints, keep)
        return progress.rows[-1].epoch_seconds

    facts: dict[str, Any] = {
        "data_wait_percent": waits,
        "train_images": config.train_images,
        "batch_size": lab.batch_size,
    }
    images = steps * lab.batch_size
    return Entrant(once=once, work=images, warm_up=WARM_UP, facts=facts, close=resources.close)
