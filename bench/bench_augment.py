"""Crop, flip, cutout and normalisation of one batch of 512, drawing included."""

import pytest
import torch

from bench.conftest import Measure
from cifarfast.augment import augment, draw
from cifarfast.device import Device
from cifarfast.randomness import generator
from cifarfast.recipe import Augmentation


@pytest.mark.benchmark(group="augment")
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def bench_augment(measure: Measure, device: Device, mode: str) -> None:
    """From uint8 on the device to the input of the network."""
    pixels = torch.randint(256, (512, 32, 32, 3), generator=generator(0, "bench")).to(torch.uint8)
    images = device.send(pixels).permute(0, 3, 1, 2)
    mean, std = (device.send(torch.full((3,), value)) for value in (0.5, 0.25))
    settings, function = Augmentation(), augment if mode == "eager" else device.compile(augment)

    def once() -> None:
        draws = device.send(draw(settings, 512, generator(0, "augment", 0, 0)))
        function(images, draws, mean, std, settings, device.compute_dtype)

    measure(once, images=512, rounds=30)
