"""Crop, flip, cutout and normalisation of one batch, drawing included."""

import pytest
import torch

from bench.contest import Entrant
from bench.lab import Lab
from cifarfast.augment import augment, draw
from cifarfast.randomness import generator
from cifarfast.recipe import Augmentation

IMAGES = 512


@pytest.mark.contest(group="augment", quick=10, full=40, baseline="eager")
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def bench_augment(lab: Lab, mode: str) -> Entrant:
    """From uint8 on the device to the input of the network."""
    device = lab.device
    pixels = torch.randint(256, (IMAGES, 32, 32, 3), generator=generator(0, "bench")).to(torch.uint8)
    images = device.send(pixels).permute(0, 3, 1, 2)
    mean, std = (device.send(torch.tensor(values)) for values in (lab.manifest.mean, lab.manifest.std))
    settings, function = Augmentation(), augment if mode == "eager" else device.compile(augment)

    def once() -> None:
        draws = device.send(draw(settings, IMAGES, generator(0, "augment", 0, 0)))
        function(images, draws, mean, std, settings, device.compute_dtype)

    return Entrant(once=once, work=IMAGES)
