"""Crop with padding 4, flip, cutout of 8x8 and normalisation: the same work for all."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from bench import augmenters
from bench.augmenters import Augmenter
from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import pixels

IMAGES = 512
VALUES = 3 * 32 * 32
"""Of one image."""
AUGMENTERS: dict[str, Callable[[Lab, torch.Tensor], Augmenter]] = {
    "ours-eager": partial(augmenters.ours, compiled=False),
    "ours-compiled": partial(augmenters.ours, compiled=True),
    "ffcv": augmenters.ffcv,
    "torchvision": augmenters.torchvision,
    "airbench": augmenters.airbench,
}


@pytest.mark.contest(group="augment", quick=7, full=20, baseline="torchvision")
@pytest.mark.parametrize("name", AUGMENTERS)
def bench_augment(lab: Lab, name: str) -> Entrant:
    """From uint8 pixels, drawing included, to fp32 on the device.

    A value is one byte when it is read and four when it is written, at least, and three FLOPs: a division by
    255, a subtraction, a division. Moving, mirroring and cutting out compute nothing.
    """
    augmenter = AUGMENTERS[name](lab, pixels(IMAGES))
    images = augmenter.batches * IMAGES

    def once() -> None:
        augmenter.once()

    facts = {"layout": augmenter.layout, "bytes": 5 * VALUES * images, "flops": 3 * VALUES * images}
    return Entrant(once=once, work=images, facts=facts)
