from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import convnet, winograd
from cifarfast.networks.convnet import ConvNet
from tests.networks.pictures import pictures

Layer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CASES = [(3, 48, 10, 4, 4), (2, 64, 64, 6, 8), (1, 80, 70, 10, 4), (2, 130, 5, 6, 6)]


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(F.conv2d(x, weight.to(x.dtype)), 2)


def results(layer: Layer, x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
    """What comes out, and the gradients of images and filters."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = layer(x, weight)
    return [y.detach(), *torch.autograd.grad(y, [x, weight], gradient.to(y.dtype))]


def last(tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), CASES)
def test_of_small_whole_numbers_it_is_exact_and_ties_go_to_the_first(
    batch: int, channels: int, filters: int, height: int, width: int
) -> None:
    """Three channels a filter, multiples of four: no value on the way needs more than the eight bits of bf16."""
    random = torch.Generator().manual_seed(0)
    x = last(torch.randint(-1, 2, (batch, channels, height, width), generator=random))
    few = torch.rand(filters, channels, generator=random).argsort(1)[:, :, None, None] < 3
    weight = last(4 * torch.randint(-1, 2, (filters, channels, 3, 3), generator=random) * few)
    gradient = last(torch.randint(-1, 2, (batch, filters, height // 2 - 1, width // 2 - 1), generator=random))
    ours = results(winograd.conv_max_pool, x.bfloat16(), weight, gradient)
    theirs = results(plain, x, weight, gradient)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.float().abs().max() > 1
        assert torch.equal(mine.float(), reference)
        assert mine.stride() == last(reference).stride()
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), CASES)
def test_its_error_is_about_twice_that_of_torch(
    batch: int, channels: int, filters: int, height: int, width: int
) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(batch, channels, height, width, generator=random), torch.bfloat16)
    weight = last(torch.randn(filters, channels, 3, 3, generator=random))
    exact = plain(x.double(), weight.double())

    def error(layer: Layer) -> float:
        return float((layer(x, weight).double() - exact).norm() / exact.norm())

    assert error(winograd.conv_max_pool) < 3 * error(plain)


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


def test_it_does_not_depend_on_the_number_of_threads() -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(5, 48, 6, 6, generator=random), torch.bfloat16)
    weight, gradient = last(torch.randn(7, 48, 3, 3, generator=random)), torch.randn(5, 7, 2, 2, generator=random)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 1000):
            torch.set_num_threads(threads)
            answers.append(results(winograd.conv_max_pool, x, weight, gradient))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for others in answers[1:]:
        assert all(torch.equal(*pair) for pair in zip(answers[0], others, strict=True))


def test_autocast_around_it_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randn(2, 48, 4, 4, generator=random), torch.bfloat16)
    weight, gradient = last(torch.randn(7, 48, 3, 3, generator=random)), torch.randn(2, 7, 1, 1, generator=random)
    without = results(winograd.conv_max_pool, x, weight, gradient)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = results(winograd.conv_max_pool, x, weight, gradient)
    assert all(torch.equal(*pair) for pair in zip(without, within, strict=True))


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
    x, weight = last(torch.zeros(2, 48, 6, 8), torch.bfloat16), torch.zeros(5, 48, 3, 3)
    assert winograd.suits(x, weight)
    assert not winograd.suits(x.float(), weight)
    assert not winograd.suits(x.to("meta"), weight)
    assert not winograd.suits(x.contiguous(), weight)
    assert not winograd.suits(x[:, :40].contiguous(memory_format=torch.channels_last), weight)
    for height, width in ((2, 6), (5, 6), (6, 7)):
        assert not winograd.suits(last(torch.zeros(2, 48, height, width), torch.bfloat16), weight)
    assert not winograd.suits(x, torch.zeros(5, 48, 1, 1))


def test_the_network_takes_it_in_bf16_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = ConvNet(width=48).to(memory_format=torch.channels_last).eval()
    model.whiten(pictures(50))
    images, calls = last(pictures(4), torch.bfloat16), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = model(images)
        monkeypatch.setattr(winograd, "suits", lambda x, _: calls.append(x.shape[1] >= winograd.LEAST_CHANNELS))
        without = model(images)
    assert calls == [False, True, True]
    assert not torch.equal(ours, without)
    assert (ours - without).norm() < 0.05 * without.norm()


@pytest.mark.parametrize("side", [2, 3])
def test_a_convolution_of_2x2_pixels_is_a_product_of_matrices(side: int) -> None:
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=False)
    x, gradient = last(torch.randn(4, 5, side, side)), torch.randn(4, 7, side, side)
    ours, theirs = (
        results(layer, x, conv.weight.detach(), gradient)
        for layer in (
            lambda x, weight: convnet.convolved(_of(weight), x),
            lambda x, weight: F.conv2d(x, weight, padding=1),
        )
    )
    torch.testing.assert_close(ours, theirs)


def _of(weight: torch.Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=False)
    del conv.weight
    conv.weight = weight
    return conv
