"""The whole training step: augmentation, forward, backward, update."""

import pytest
import torch

from bench.conftest import Measure
from cifarfast.device import open_device
from cifarfast.loaders import Batch
from cifarfast.model import build_model
from cifarfast.randomness import generator
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.step import TrainStep


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def bench_step(measure: Measure, request: pytest.FixtureRequest, mode: str, layout: str) -> None:
    """The reference recipe at `--batch-size`, in fp32."""
    size: int = request.config.getoption("--batch-size")
    device = open_device(Runtime(channels_last=layout == "channels-last"), print)
    recipe = Recipe(batch_size=size)
    model = device.place(build_model(dropout=recipe.dropout, seed=0))
    step = TrainStep(model, recipe, device, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), seed=0)
    compile_seconds = step.compile(pytest.skip) if mode == "compiled" else None
    pixels = torch.randint(256, (size, 32, 32, 3), generator=generator(0, "bench")).to(torch.uint8)
    labels = torch.randint(10, (size,), generator=generator(1, "bench"))
    batch = Batch(device.send(pixels).permute(0, 3, 1, 2), device.send(labels))

    def once() -> None:
        step(batch, augmented=False, epoch=0, number=0, position=0)

    measure(once, images=size, rounds=5, batch_size=size, compile_seconds=compile_seconds)
