from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks import winograd
from tests.networks.threads import with_threads

Layer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CASES = [(3, 48, 10, 4, 4), (2, 64, 64, 6, 8), (1, 80, 70, 10, 4), (2, 130, 5, 6, 6)]


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(plain_conv(x, weight), 2)


def plain_conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight.to(x.dtype))


WAYS: dict[str, tuple[Layer, Layer]] = {
    "conv": (winograd.conv, plain_conv),
    "conv_max_pool": (winograd.conv_max_pool, plain),
}
"""Ours and torch's."""
both = pytest.mark.parametrize("way", WAYS)


def results(layer: Layer, x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
    """What comes out, and the gradients of images and filters."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = layer(x, weight)
    return [y.detach(), *torch.autograd.grad(y, [x, weight], gradient.to(y.dtype))]


def last(tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


@both
@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), CASES)
def test_of_small_whole_numbers_it_is_exact_and_ties_go_to_the_first(
    way: str, batch: int, channels: int, filters: int, height: int, width: int
) -> None:
    """Three channels a filter, multiples of four: no value on the way needs more than eight bits."""
    layer, reference = WAYS[way]
    random = torch.Generator().manual_seed(0)
    x = last(torch.randint(-1, 2, (batch, channels, height, width), generator=random))
    few = torch.rand(filters, channels, generator=random).argsort(1)[:, :, None, None] < 3
    weight = last(4 * torch.randint(-1, 2, (filters, channels, 3, 3), generator=random) * few)
    shape, share = reference(x, weight).shape, 0.2 if way == "conv" else 1.0
    gradient = torch.randint(-1, 2, shape, generator=random) * (torch.rand(shape, generator=random) < share)
    ours = results(layer, x.bfloat16(), weight, last(gradient))
    theirs = results(reference, x, weight, last(gradient))
    for mine, exact in zip(ours, theirs, strict=True):
        assert mine.float().abs().max() > 1
        assert torch.equal(mine.float(), exact)
        assert mine.stride() == last(exact).stride()
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16, torch.bfloat16, torch.float32]


@both
@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), CASES)
def test_its_error_is_about_twice_that_of_torch(
    way: str, batch: int, channels: int, filters: int, height: int, width: int
) -> None:
    layer, reference = WAYS[way]
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(batch, channels, height, width, generator=random), torch.bfloat16)
    weight = last(torch.randn(filters, channels, 3, 3, generator=random))
    exact = reference(x.double(), weight.double())

    def error(of: Layer) -> float:
        return float((of(x, weight).double() - exact).norm() / exact.norm())

    assert error(layer) < 3 * error(reference)


@both
def test_zeros_around_images_are_padding(way: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 48, 4, 2, generator=random), torch.bfloat16)
    weight = last(torch.randn(7, 48, 3, 3, generator=random))
    layer, padded = getattr(winograd, way), last(F.pad(x, (1, 1, 1, 1)), torch.bfloat16)
    gradient = torch.randn(layer(padded, weight).shape, generator=random)
    ours = results(lambda x, weight: layer(x, weight, padding=1), x, weight, gradient)
    theirs = results(layer, padded, weight, gradient)
    for mine, other in zip(ours, [theirs[0], theirs[1][:, :, 1:-1, 1:-1], theirs[2]], strict=True):
        assert torch.equal(mine, other)


def test_the_gradients_of_a_convolution_are_within_bf16_of_those_in_fp64() -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 64, 8, 8, generator=random), torch.bfloat16)
    weight = last(torch.randn(32, 64, 3, 3, generator=random))
    gradient = last(torch.randn(2, 32, 6, 6, generator=random), torch.bfloat16)
    ours = results(winograd.conv, x, weight, gradient)
    theirs = results(plain_conv, x.double(), weight.double(), gradient.double())
    for mine, exact in zip(ours, theirs, strict=True):
        assert (mine.double() - exact).norm() < 0.01 * exact.norm()


def test_the_gradients_are_those_of_the_pixels_that_were_chosen() -> None:
    """Against fp64; the chosen pixels stand out, so that rounding chooses no others."""
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 64, 8, 8, generator=random), torch.bfloat16)
    weight = last(torch.randn(32, 64, 3, 3, generator=random))
    gradient = last(torch.randn(2, 32, 3, 3, generator=random), torch.bfloat16)
    of_tile = F.conv2d(x.double(), weight.double()).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(2).values
    gradient = gradient * (of_tile[..., 0] - of_tile[..., 1] > 0.5)
    assert (gradient != 0).float().mean() > 0.9
    ours = results(winograd.conv_max_pool, x, weight, gradient)
    theirs = results(plain, x.double(), weight.double(), gradient.double())
    for mine, exact in zip(ours, theirs, strict=True):
        assert (mine.double() - exact).norm() < 0.01 * exact.norm()


@both
def test_it_does_not_depend_on_the_number_of_threads(way: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(5, 48, 6, 6, generator=random), torch.bfloat16)
    weight = last(torch.randn(7, 48, 3, 3, generator=random))
    gradient = torch.randn(WAYS[way][1](x, weight).shape, generator=random)
    first, *others = with_threads(lambda: results(WAYS[way][0], x, weight, gradient), (1, 2, 1000))
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))


@both
def test_autocast_around_it_changes_nothing(way: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 48, 4, 4, generator=random), torch.bfloat16)
    weight = last(torch.randn(7, 48, 3, 3, generator=random))
    gradient = torch.randn(WAYS[way][1](x, weight).shape, generator=random)
    without = results(WAYS[way][0], x, weight, gradient)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = results(WAYS[way][0], x, weight, gradient)
    assert all(torch.equal(*pair) for pair in zip(without, within, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own check
@both
def test_torch_finds_nothing_wrong_with_the_operators(way: str) -> None:
    """That they change no input, that what is said of their shapes is true, that autograd and the compiler agree."""
    x = torch.randn(2, 6, 4, 48).bfloat16().requires_grad_()
    torch.library.opcheck(getattr(winograd, f"_{way}"), (x, torch.randn(7, 48, 3, 3, requires_grad=True)))


@both
def test_compiled_it_computes_the_same(way: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 48, 4, 6, generator=random), torch.bfloat16)
    weight = last(torch.randn(7, 48, 3, 3, generator=random))
    gradient = torch.randn(WAYS[way][1](x, weight).shape, generator=random)
    eager = results(WAYS[way][0], x, weight, gradient)
    compiled = results(torch.compile(WAYS[way][0], dynamic=False), x, weight, gradient)
    assert all(torch.equal(*pair) for pair in zip(eager, compiled, strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_comes_through(value: float) -> None:
    x, weight = last(torch.ones(2, 48, 6, 6), torch.bfloat16), last(torch.ones(3, 48, 3, 3))
    x[1, 5, 2, 3] = value
    found = winograd.conv_max_pool(x, weight).isfinite()
    assert found[0].all()
    assert not found[1].any()
    gradient = torch.zeros(2, 3, 2, 2)
    gradient[0, 2, 1, 0] = value
    _, of_x, of_weight = results(winograd.conv_max_pool, torch.ones_like(x), weight, gradient)
    assert of_x[1].isfinite().all()
    assert not of_x[0].isfinite().all()
    assert of_weight[:2].isfinite().all()
    assert not of_weight[2].isfinite().all()


def test_whom_it_suits() -> None:
    channels = 2 * winograd.LEAST_CHANNELS
    x, weight = last(torch.zeros(2, channels, 6, 8), torch.bfloat16), torch.zeros(channels, channels, 3, 3)
    assert winograd.suits(x, weight)
    assert not winograd.suits(x.float(), weight)
    assert not winograd.suits(x.to("meta"), weight)
    assert not winograd.suits(x.contiguous(), weight)
    assert not winograd.suits(x, torch.zeros(channels, channels, 1, 1))
    assert not winograd.suits(x, weight[: channels - 1])
    for height, width in ((2, 6), (5, 6), (6, 7)):
        assert not winograd.suits(last(torch.zeros(2, channels, height, width), torch.bfloat16), weight)
    assert winograd.suits(last(torch.zeros(2, channels, 2, 6), torch.bfloat16), weight, padding=1)
