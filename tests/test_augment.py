"""The batched augmentation against a per-image one written the obvious way."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from cifarfast.augment import alternating_flips, augment, draw, draw_batch, normalize, shrink
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


def flips(indices: npt.NDArray[np.int64], epoch: int, *, probability: float = 0.5, seed: int = 3) -> list[bool]:
    flipped = alternating_flips(indices, epoch, probability=probability, seed=seed)
    assert flipped.dtype == torch.bool
    return list(map(bool, flipped))


def test_every_image_is_mirrored_in_every_other_epoch() -> None:
    indices = np.arange(500)
    even, odd = flips(indices, 0), flips(indices, 1)
    assert odd == [not flipped for flipped in even]
    for epoch in range(2, 8):
        assert flips(indices, epoch) == (odd if epoch % 2 else even)


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_the_share_that_is_mirrored_in_even_epochs_is_a_setting(probability: float) -> None:
    mirrored = sum(flips(np.arange(20_000), 0, probability=probability))
    assert stats.binomtest(mirrored, 20_000, probability).pvalue > 1e-3
    assert not any(flips(np.arange(100), 0, probability=0.0))
    assert all(flips(np.arange(100), 0, probability=1.0))


def test_whether_an_image_is_mirrored_does_not_depend_on_its_batch_but_on_the_seed() -> None:
    everyone, order = flips(np.arange(300), 0), np.random.default_rng(1).permutation(300)
    for batch in np.split(order, 6):
        assert flips(batch, 0) == [everyone[index] for index in batch]
    assert flips(np.array([7, 7]), 0) == [everyone[7]] * 2
    differing = sum(one != other for one, other in zip(everyone, flips(np.arange(300), 0, seed=4), strict=True))
    assert stats.binomtest(differing, 300).pvalue > 1e-3


def test_without_alternation_the_draws_of_a_batch_are_those_of_its_generator() -> None:
    for indices in (np.arange(64), np.arange(64) + 1000):
        ours = draw_batch(EVERYTHING, indices, seed=1, epoch=2, number=3)
        assert torch.equal(ours, draw(EVERYTHING, 64, generator(1, "augment", 2, 3)))


def test_with_alternation_only_the_flips_are_others() -> None:
    settings = replace(EVERYTHING, alternate_flip=True)
    indices = np.random.default_rng(2).permutation(500)[:200]
    drawn = {epoch: draw_batch(settings, indices, seed=1, epoch=epoch, number=3) for epoch in (2, 3)}
    for epoch, ours in drawn.items():
        usual = draw_batch(EVERYTHING, indices, seed=1, epoch=epoch, number=3)
        assert torch.equal(ours[[0, 1, 3, 4, 5]], usual[[0, 1, 3, 4, 5]])
        assert not torch.equal(ours[2], usual[2])
    assert torch.equal(drawn[2][2], 1 - drawn[3][2])
    elsewhere = draw_batch(settings, indices[::-1].copy(), seed=1, epoch=2, number=9)
    assert torch.equal(elsewhere[2].flip(0), drawn[2][2])
    assert not torch.equal(draw_batch(settings, indices, seed=5, epoch=2, number=3)[2], drawn[2][2])
    always = draw_batch(replace(settings, flip_probability=1.0), indices, seed=1, epoch=0, number=0)
    assert always[2].all()
    never = replace(settings, flip_probability=0.0)
    assert not any(draw_batch(never, indices, seed=1, epoch=epoch, number=0)[2].any() for epoch in (0, 1))


@pytest.mark.parametrize("size", [24, 17])
def test_shrinking_is_that_of_pillow(size: int) -> None:
    """To its whole pixel values, which it rounds after each of two passes."""
    image_module = pytest.importorskip("PIL.Image")
    smooth = torch.nn.functional.avg_pool2d(pictures(4).float(), 5, 1, 2).round()
    ours = shrink(smooth, size)
    for image, small in zip(smooth, ours, strict=True):
        picture = image_module.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy())
        theirs = np.asarray(picture.resize((size, size), image_module.Resampling.BILINEAR), dtype=np.float32)
        np.testing.assert_allclose(small.permute(1, 2, 0).numpy(), theirs, atol=1.01)


def test_shrinking_works_in_bf16_and_is_that_of_fp32_but_for_the_rounding() -> None:
    images = pictures(4).to(torch.bfloat16)
    small = shrink(images, 24)
    assert small.dtype == torch.bfloat16
    assert torch.equal(small, shrink(images.float(), 24).to(torch.bfloat16))


def test_shrinking_keeps_what_is_constant_and_what_has_its_size() -> None:
    images = pictures(4).float()
    assert torch.equal(shrink(images, 32), images)
    constant = torch.tensor([-1.0, 0.25, 3.0]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(shrink(constant, 20), constant[:, :, :20, :20])
    small = shrink(images, 20)
    assert small.shape == (4, 3, 20, 20)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)), rtol=0.02, atol=0)
