"""Crop, flip, cutout and normalisation of a whole batch at once, on the device.

The random numbers are drawn outside (`draw`, on the CPU, a function of its seed), the work is done by
one pure function of tensors (`augment`) that compiles into one gather. Eager and compiled runs, and
every device, therefore see identical images.

Cutout: T. DeVries and G. W. Taylor, arXiv:1708.04552, here with the hole wholly inside the image.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from cifarfast.randomness import generator, seed_of
from cifarfast.recipe import CROP_SIZE, Augmentation

Indices = npt.NDArray[np.int64]


def draw(
    augmentation: Augmentation, images: int, generator: torch.Generator, *, flipped: torch.Tensor | None = None
) -> torch.Tensor:
    """The random part of augmenting one batch.

    Args:
        augmentation: with which probabilities, and how far.
        images: how many.
        generator: of the random numbers.
        flipped: bool (images,), where that is decided already (`alternating_flips`).

    Returns:
        int64 (6, images) on the CPU, one row each: crop offset down and across, 0 to 2 * crop_padding;
        flip, 0 or 1; hole offset down and across, 0 to 32 - cutout_size; hole, 0 or 1.
    """
    a = augmentation
    crop = torch.randint(2 * a.crop_padding + 1, (2, images), generator=generator)
    hole = torch.randint(CROP_SIZE - a.cutout_size + 1, (2, images), generator=generator)
    chance = torch.rand((2, images), generator=generator)
    if flipped is None:
        flipped = chance[0] < a.flip_probability
    holed = chance[1:] < (a.cutout_probability if a.cutout_size else 0.0)
    return torch.cat([crop, flipped[None].long(), hole, holed.long()])


def draw_batch(augmentation: Augmentation, indices: Indices, *, seed: int, epoch: int, number: int) -> torch.Tensor:
    """`draw` for batch `number` of `epoch` in a run with this seed, which holds the images `indices`."""
    numbers, flipped = generator(seed, "augment", epoch, number), None
    if augmentation.alternate_flip and augmentation.flip_probability > 0.0:
        probability, first = augmentation.flip_probability, seed_of(seed, "flip")
        flipped = alternating_flips(indices, epoch, probability=probability, seed=first)
    return draw(augmentation, len(indices), numbers, flipped=flipped)


def alternating_flips(indices: Indices, epoch: int, *, probability: float, seed: int) -> torch.Tensor:
    """Which images of a batch are mirrored: every one in either all even or all odd epochs.

    Args:
        indices: int64 (B,), numbers of the images.
        epoch: counted from 0.
        probability: share of the images that are mirrored in the even ones.
        seed: decides which.

    Returns:
        bool (B,) on the CPU.
    """
    # One stream of numbers, of which every image has its own, wherever the stream ends.
    chance = np.random.default_rng(seed).random(int(indices.max()) + 1)[indices]
    return torch.from_numpy((chance < probability) ^ (epoch % 2 == 1))


def shrink(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images (B, 3, 32, 32) at `size` pixels a side: a weighted mean of what a pixel covers ("triangle" filter).

    The arithmetic is fp32: on a CPU torch knows no other for this.
    """
    if size == images.shape[-1]:
        return images
    return F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True).to(images.dtype)


def augment(
    images: torch.Tensor,
    draws: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    augmentation: Augmentation,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Crop, flip, cut out and normalise a batch.

    Args:
        images: uint8 (B, 3, 32, 32) in channels-last memory.
        draws: int64 (6, B) as `draw` makes it, on the device of the images.
        mean: float32 (3,), mean of each channel on the scale 0 to 1.
        std: float32 (3,), standard deviation likewise.
        augmentation: padding width and mode, hole size; the probabilities are in `draws` already.
        dtype: dtype of the result; the arithmetic is fp32.

    Returns:
        (B, 3, 32, 32) of `dtype` in channels-last memory: `((x / 255) - mean) / std`, zero where the crop
        reaches into zero padding and in the hole.
    """
    down, across, flip, hole_down, hole_across, hole = (row.view(-1, 1) for row in draws)
    batch, size = images.shape[0], CROP_SIZE
    place = torch.arange(size, device=images.device).view(1, -1)
    rows = place + down - augmentation.crop_padding
    columns = torch.where(flip == 1, size - 1 - place, place) + across - augmentation.crop_padding
    in_hole = _inside(place - hole_down, augmentation.cutout_size).unsqueeze(2)
    in_hole = in_hole & _inside(place - hole_across, augmentation.cutout_size).unsqueeze(1) & (hole == 1).unsqueeze(2)
    keep = ~in_hole
    if augmentation.padding_mode == "zero":
        keep = keep & _inside(rows, size).unsqueeze(2) & _inside(columns, size).unsqueeze(1)

    # One gather of whole pixels: the flat index of the source of every target pixel.
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * size
    source = (first + _mirror(rows).unsqueeze(2)) * size + _mirror(columns).unsqueeze(1)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3)[source.view(-1)].view(batch, size, size, 3)
    normal = _normalize(pixels, mean, std)
    return torch.where(keep.unsqueeze(3), normal, 0.0).to(dtype).permute(0, 3, 1, 2)


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`((x / 255) - mean) / std` of a uint8 (B, 3, 32, 32) batch, arithmetic in fp32, result in `dtype`."""
    return _normalize(images.permute(0, 2, 3, 1), mean, std).to(dtype).permute(0, 3, 1, 2)


def _normalize(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return (pixels.float() / 255 - mean) / std


def _inside(offset: torch.Tensor, size: int) -> torch.Tensor:
    return (offset >= 0) & (offset < size)


def _mirror(index: torch.Tensor) -> torch.Tensor:
    """Indices beyond either end, mirrored into 0..31 without repeating the border (numpy's 'reflect').

    Under zero padding the value read there is masked, so that any valid index will do.
    """
    index = index.abs()
    return torch.where(index > CROP_SIZE - 1, 2 * (CROP_SIZE - 1) - index, index)
