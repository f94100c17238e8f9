"""A checkpoint: what training waits for, and how long it takes until it is on the disk."""

import time
from itertools import count
from typing import Literal

import pytest

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import device_name
from cifarfast.checkpoint import Checkpoints, Progress
from cifarfast.config import RunConfig
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.setup import set_up


@pytest.mark.contest(group="checkpoint", quick=5, full=20, baseline="whole")
@pytest.mark.parametrize("part", ["waiting", "whole"])
def bench_checkpoint(lab: Lab, part: Literal["waiting", "whole"]) -> Entrant:
    """Network, optimizer and the rest of the state after a step; the disk is that of pytest's temporary folder."""
    runtime, size = Runtime(device=device_name(lab), loader="resident"), 2
    config = RunConfig(
        data=lab.folder, recipe=Recipe(batch_size=size), runtime=runtime, train_images=size, verify=False
    )
    setup = set_up(config)
    with setup.train_loader.epoch(0) as batches:
        for batch in batches:
            setup.step(batch, augmented=False, epoch=0, number=0, position=0)
    effective, progress, numbers = setup.effective(compiled=False), Progress(), count(1)

    def once() -> float:
        start = time.perf_counter()
        with Checkpoints(lab.scratch, effective, minutes=60) as checkpoints:
            checkpoints.write(setup.step, progress, next(numbers))
            waited = time.perf_counter() - start
        return waited if part == "waiting" else time.perf_counter() - start

    tensors = setup.step.tensors().values()
    return Entrant(once=once, work=sum(tensor.nbytes for tensor in tensors), unit="bytes")
