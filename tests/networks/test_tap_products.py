import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks import bfloat16, tap_products
from cifarfast.networks.tap_products_passes import spread, turn
from tests.networks.threads import with_threads

CASES = [(4, 48, 10, 3, 3), (2, 33, 130, 5, 7), (1, 5, 70, 1, 3), (3, 64, 64, 7, 7), (8, 16, 24, 2, 4)]


def last(tensor: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


def made(batch: int, channels: int, filters: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Images, filters, and the gradient of what comes out."""
    random = torch.Generator().manual_seed(0)
    shapes = (batch, channels, height, width), (filters, channels, 3, 3), (batch, filters, height, width)
    x, weight, gradient = (last(torch.randn(shape, generator=random)) for shape in shapes)
    return x.requires_grad_(), weight.requires_grad_(), gradient


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight, padding=1)


@pytest.mark.parametrize("sizes", CASES)
def test_it_is_torchs_but_for_the_gradient_of_the_filters_which_errs_no_more(sizes: tuple[int, ...]) -> None:
    x, weight, gradient = made(*sizes)
    y, theirs = tap_products.conv(x, weight), plain(x, weight)
    assert torch.equal(y, theirs)
    of_x, of_weight = torch.autograd.grad(y, [x, weight], gradient)
    their_x, their_weight = torch.autograd.grad(theirs, [x, weight], gradient)
    assert torch.equal(of_x, their_x)
    assert of_x.stride() == their_x.stride()
    assert of_weight.stride() == their_weight.stride()
    wide = weight.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(plain(x.double(), wide), wide, gradient.double())
    assert (their_weight.double() - exact).norm() > 0.001 * exact.norm()
    assert (of_weight.double() - exact).norm() < 1.05 * (their_weight.double() - exact).norm()


def test_of_small_whole_numbers_the_gradient_is_exact() -> None:
    random = torch.Generator().manual_seed(0)
    x = last(torch.randint(-1, 2, (2, 20, 3, 5), generator=random)).requires_grad_()
    weight, gradient = torch.zeros(9, 20, 3, 3), torch.randint(-1, 2, (2, 9, 3, 5), generator=random)
    weight = last(weight).requires_grad_()
    (ours,) = torch.autograd.grad(tap_products.conv(x, weight), weight, last(gradient))
    wide = weight.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(plain(x.double(), wide), wide, gradient.double())
    assert torch.equal(ours.double(), exact)


def test_images_that_need_no_gradient_get_none() -> None:
    x, weight, gradient = made(4, 8, 8, 3, 3)
    (expected,) = torch.autograd.grad(tap_products.conv(x, weight), weight, gradient)
    tap_products.conv(x.detach(), weight).backward(gradient)  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, expected)


def test_it_does_not_depend_on_the_number_of_threads() -> None:
    x, weight, gradient = made(6, 40, 40, 5, 5)
    one, two = with_threads(lambda: torch.autograd.grad(tap_products.conv(x, weight), weight, gradient)[0])
    assert torch.equal(one, two)


@pytest.mark.parametrize(("batch", "height", "width", "channels"), [(3, 3, 3, 5), (40, 5, 5, 70), (1, 1, 1, 1)])
def test_the_passes_put_zeros_between_images(batch: int, height: int, width: int, channels: int) -> None:
    images = torch.arange(1, batch * height * width * channels + 1).view(batch, height, width, channels)
    images = images.to(torch.uint16).view(torch.bfloat16)  # a pass sees bits
    spaced = images.new_empty(batch + 2, height + 1, width + 1, channels)
    turned = images.new_empty(channels, batch * (height + 1) * (width + 1))
    bfloat16.run(spread, images, spaced)
    bfloat16.run(turn, images, turned.view(torch.uint64))
    expected = F.pad(images.view(torch.int16), (0, 0, 0, 1, 0, 1))
    assert torch.equal(spaced.view(torch.int16), F.pad(expected, (0, 0, 0, 0, 0, 0, 1, 1)))
    assert torch.equal(turned.view(torch.int16), expected.flatten(0, 2).T)


@pytest.mark.parametrize(
    ("reason", "x", "weight"),
    [
        ("", last(torch.ones(4, 192, 7, 7)), torch.ones(192, 192, 3, 3)),
        ("dtype", last(torch.ones(4, 192, 7, 7), torch.float32), torch.ones(192, 192, 3, 3)),
        ("layout", torch.ones(4, 192, 7, 7, dtype=torch.bfloat16), torch.ones(192, 192, 3, 3)),
        ("side", last(torch.ones(4, 192, 7, 9)), torch.ones(192, 192, 3, 3)),
        ("channels", last(torch.ones(4, 191, 7, 7)), torch.ones(192, 191, 3, 3)),
        ("filters", last(torch.ones(4, 192, 7, 7)), torch.ones(191, 192, 3, 3)),
        ("kernel", last(torch.ones(4, 192, 7, 7)), torch.ones(192, 192, 1, 1)),
        ("pixels", last(torch.ones(3, 192, 6, 6)), torch.ones(192, 192, 3, 3)),
    ],
)
def test_what_it_takes(monkeypatch: pytest.MonkeyPatch, reason: str, x: torch.Tensor, weight: torch.Tensor) -> None:
    monkeypatch.setattr(bfloat16, "MATRIX_UNITS", True)
    assert tap_products.suits(x, weight) == (not reason)
    monkeypatch.setattr(bfloat16, "MATRIX_UNITS", False)
    assert not tap_products.suits(x, weight)
