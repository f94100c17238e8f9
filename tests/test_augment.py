"""The batched augmentation against a per-image one written the obvious way."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from cifarfast.augment import augment, draw, normalize
from cifarfast.randomness import generator
from cifarfast.recipe import Augmentation

MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.247, 0.2435, 0.2616])
EVERYTHING = Augmentation()


def pictures(count: int) -> torch.Tensor:
    pixels = torch.randint(256, (count, 32, 32, 3), generator=generator(0, "pictures")).to(torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def naive(image: torch.Tensor, draws: list[int], settings: Augmentation) -> npt.NDArray[np.float32]:
    """Pad, slice, mirror and overwrite one image, in numpy and in this order."""
    down, across, flip, hole_down, hole_across, hole = draws
    normal = (image.float() / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    border = (0, 0), *[(settings.crop_padding,) * 2] * 2
    mode = "constant" if settings.padding_mode == "zero" else "reflect"
    padded: npt.NDArray[np.float32] = np.pad(normal.numpy(), border, mode=mode)  # type: ignore[call-overload]
    picture = padded[:, down : down + 32, across : across + 32]
    picture = picture[:, :, ::-1].copy() if flip else picture.copy()
    if hole:
        size = settings.cutout_size
        picture[:, hole_down : hole_down + size, hole_across : hole_across + size] = 0
    return picture


def check(draws: torch.Tensor, settings: Augmentation) -> None:
    images = pictures(draws.shape[1])
    ours = augment(images, draws, MEAN, STD, settings, torch.float32)
    for image, one, result in zip(images, draws.T.tolist(), ours, strict=True):
        np.testing.assert_array_equal(result.numpy(), naive(image, one, settings))


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 4])
def test_every_crop_offset_with_and_without_flip(padding: int, mode: str) -> None:
    offsets = torch.arange(2 * padding + 1)
    down, across, flip = (axis.flatten() for axis in torch.meshgrid(offsets, offsets, torch.arange(2), indexing="ij"))
    nothing = torch.zeros_like(flip)
    draws = torch.stack([down, across, flip, nothing, nothing, nothing])
    check(draws, Augmentation(crop_padding=padding, padding_mode=mode))  # type: ignore[arg-type]


def test_every_place_of_the_hole() -> None:
    down, across = (axis.flatten() for axis in torch.meshgrid(torch.arange(25), torch.arange(25), indexing="ij"))
    draws = torch.stack([down * 0 + 4, down * 0 + 4, down * 0, down, across, down * 0 + 1])
    check(draws, EVERYTHING)


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        Augmentation(padding_mode="reflect", cutout_size=5, cutout_probability=0.5),
        Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0),
        Augmentation(crop_padding=31, cutout_size=32),
    ],
)
def test_random_draws(settings: Augmentation) -> None:
    check(draw(settings, 64, generator(3, "augment", 1, 2)), settings)


def test_compiled_equals_eager() -> None:
    images, draws = pictures(48), draw(EVERYTHING, 48, generator(0, "augment"))
    compiled = torch.compile(augment, dynamic=False)
    for dtype in (torch.float32, torch.bfloat16):
        eager = augment(images, draws, MEAN, STD, EVERYTHING, dtype)
        assert torch.equal(compiled(images, draws, MEAN, STD, EVERYTHING, dtype), eager)
        assert eager.dtype == dtype
        assert eager.is_contiguous(memory_format=torch.channels_last)


def test_switched_off_it_only_normalises() -> None:
    settings = Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
    images = pictures(16)
    ours = augment(images, draw(settings, 16, generator(0, "augment")), MEAN, STD, settings, torch.float32)
    assert torch.equal(ours, normalize(images, MEAN, STD, torch.float32))


def test_normalisation_is_torchvisions() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    images = pictures(16)
    theirs = v2.Normalize(MEAN.tolist(), STD.tolist())(v2.ToDtype(torch.float32, scale=True)(images))
    # torchvision multiplies by 1/255 where we divide: the last bits may differ.
    torch.testing.assert_close(normalize(images, MEAN, STD, torch.float32), theirs, rtol=0, atol=1e-6)


def test_draws_are_a_function_of_seed_epoch_and_batch() -> None:
    first = draw(EVERYTHING, 512, generator(1, "augment", 2, 3))
    assert torch.equal(first, draw(EVERYTHING, 512, generator(1, "augment", 2, 3)))
    for other in ((2, "augment", 2, 3), (1, "dropout", 2, 3), (1, "augment", 3, 3), (1, "augment", 2, 4)):
        assert not torch.equal(first, draw(EVERYTHING, 512, generator(other[0], other[1], *other[2:])))


def test_draws_are_uniform() -> None:
    count = 50_000
    settings = Augmentation(flip_probability=0.5, cutout_probability=0.3)
    down, across, flip, hole_down, hole_across, hole = draw(settings, count, generator(5, "augment")).numpy()
    offsets = np.bincount(down * 9 + across, minlength=81)
    holes = np.bincount(hole_down * 25 + hole_across, minlength=625)
    assert len(offsets) == 81
    assert len(holes) == 625
    assert stats.chisquare(offsets).pvalue > 1e-3
    assert stats.chisquare(holes).pvalue > 1e-3
    assert stats.binomtest(int(flip.sum()), count, 0.5).pvalue > 1e-3
    assert stats.binomtest(int(hole.sum()), count, 0.3).pvalue > 1e-3


def test_probabilities_of_zero_and_one_are_exact() -> None:
    never = draw(Augmentation(flip_probability=0.0, cutout_probability=0.0), 4096, generator(0, "augment"))
    always = draw(Augmentation(flip_probability=1.0, cutout_probability=1.0), 4096, generator(0, "augment"))
    assert never[[2, 5]].sum(1).tolist() == [0, 0]
    assert always[[2, 5]].sum(1).tolist() == [4096, 4096]
