"""Five ways to crop, flip, cut out and normalise the same images: ours and what others use."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count

import numpy as np
import torch
from PIL import Image

from bench.lab import Lab
from bench.variants import Layout
from cifarfast.augment import augment, draw
from cifarfast.dataset.beton import Beton
from cifarfast.errors import UserError
from cifarfast.loaders.base import effective_workers
from cifarfast.randomness import generator
from cifarfast.recipe import Augmentation
from data_prep.writers.raw_writer import write_raw

AUGMENTATION = Augmentation()
"""Crop 32 after padding 4, flip one in two, a hole of 8x8 in every image."""
FFCV_BATCHES = 16
"""Batches of one FFCV epoch, whose start and end are then no matter."""


@dataclass(frozen=True, kw_only=True)
class Augmenter:
    """One way."""

    once: Callable[[], torch.Tensor]
    """Augments; returns the last batch, fp32 (B, 3, 32, 32) on the device, normalised."""
    layout: Layout
    """Memory layout of that."""
    batches: int = 1
    """Batches that one call augments."""


def ours(lab: Lab, pixels: torch.Tensor, *, compiled: bool) -> Augmenter:
    """The production function, its draws included."""
    device, numbers = lab.device, count()
    images = device.send(pixels).permute(0, 3, 1, 2)
    mean, std = (device.send(torch.tensor(values)) for values in (lab.manifest.mean, lab.manifest.std))
    function = device.compile(augment) if compiled else augment

    def once() -> torch.Tensor:
        draws = device.send(draw(AUGMENTATION, len(images), generator(0, "augment", 0, next(numbers))))
        return function(images, draws, mean, std, AUGMENTATION, torch.float32)

    return Augmenter(once=once, layout="channels-last")


def torchvision(lab: Lab, pixels: torch.Tensor) -> Augmenter:
    """`transforms.v2` on one PIL image after the other, in this process: the production loader's, and normalisation."""
    from torchvision.transforms import v2

    from cifarfast.loaders.torchvision_loader import augmenting

    mean, std = list(lab.manifest.mean), list(lab.manifest.std)
    steps = [augmenting(AUGMENTATION, _fill(lab)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    transform, images = v2.Compose(steps), pixels.numpy()

    def once() -> torch.Tensor:
        return lab.device.send(torch.stack([transform(Image.fromarray(image)) for image in images]))

    return Augmenter(once=once, layout="contiguous")


def ffcv(lab: Lab, pixels: torch.Tensor) -> Augmenter:
    """FFCV's own transforms, as in its documentation, on an epoch of the batch again and again.

    On a CPU they end with its own normalisation, elsewhere with torchvision's on the device, as in its CIFAR
    example.

    Raises:
        UserError: FFCV cannot be imported.
    """
    try:
        import_module("cifarfast.loaders.ffcv_loader")  # keeps FFCV from setting torch's threads
        from ffcv.fields.rgb_image import SimpleRGBImageDecoder
        from ffcv.loader import Loader
        from ffcv.transforms import (
            Convert,
            Cutout,
            NormalizeImage,
            RandomHorizontalFlip,
            RandomTranslate,
            ToDevice,
            ToTensor,
            ToTorchImage,
        )
    except (ImportError, OSError) as error:
        raise UserError(f"FFCV cannot be used ({error}): pip install 'cifarfast[ffcv]'") from None
    from torchvision.transforms import Normalize

    path, images = lab.scratch / "batches.beton", pixels.numpy()
    write_raw(path, Beton(np.tile(images, (FFCV_BATCHES, 1, 1, 1)), np.zeros(FFCV_BATCHES * len(images), np.int64)))
    a, fill = AUGMENTATION, _fill(lab)
    mean, std = (255 * np.array(values) for values in (lab.manifest.mean, lab.manifest.std))
    operations = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(a.flip_probability),
        RandomTranslate(a.crop_padding, fill),
        Cutout(a.cutout_size, fill),
    ]
    if lab.device.target.type == "cpu":
        operations += [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()]
    else:
        to_device = ToDevice(lab.device.target)
        operations += [ToTensor(), to_device, ToTorchImage(), Convert(torch.float32), Normalize(mean, std)]
    workers = max(1, effective_workers(None))
    loader = Loader(str(path), len(images), num_workers=workers, seed=0, pipelines={"image": operations, "label": None})

    def once() -> torch.Tensor:
        # To its end: an iterator that is left leaves a thread behind.
        last: torch.Tensor = deque(loader, maxlen=1)[0][0]
        return last

    return Augmenter(once=once, layout="channels-last", batches=FFCV_BATCHES)


def airbench(lab: Lab, pixels: torch.Tensor) -> Augmenter:
    """cifar10-airbench's `CifarLoader`; it mirrors the border where the others fill it.

    It wants a GPU and downloads CIFAR-10, but takes a device's name for the number of a GPU, and `train.pt` for
    the download. It prepares images once and for all, in fp16: given ours anew, with its epoch set back, it does
    all the work in every call, in fp32. In epoch 0 it flips once beforehand, and with `altflip` not once more.

    Raises:
        UserError: airbench is not installed.
    """
    try:
        from airbench import CifarLoader
    except ImportError as error:
        raise UserError(f"airbench cannot be used ({error}): pip install 'cifarfast[bench]'") from None
    from torchvision.transforms import Normalize

    a = AUGMENTATION
    images, labels = lab.device.send(pixels).permute(0, 3, 1, 2), torch.zeros(len(pixels), dtype=torch.int64)
    torch.save({"images": pixels, "labels": labels, "classes": []}, lab.scratch / "train.pt")
    loader = CifarLoader(
        lab.scratch,
        batch_size=len(images),
        aug={"flip": a.flip_probability > 0, "translate": a.crop_padding, "cutout": a.cutout_size},
        shuffle=False,
        altflip=True,
        gpu=str(lab.device.target),
    )
    loader.normalize = Normalize(lab.manifest.mean, lab.manifest.std)

    def once() -> torch.Tensor:
        loader.epoch = 0
        loader.images = images.float() / 255
        augmented: torch.Tensor = next(iter(loader))[0]
        return augmented

    return Augmenter(once=once, layout="contiguous")


def _fill(lab: Lab) -> tuple[int, int, int]:
    """The mean, as the pixel next to it: zero after normalisation, nearly."""
    red, green, blue = (round(255 * channel) for channel in lab.manifest.mean)
    return red, green, blue
