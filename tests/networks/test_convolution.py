from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import bfloat16, tap_products, winograd
from cifarfast.networks.convnet import ConvNet
from cifarfast.networks.convolution import convolved, pooled
from cifarfast.networks.resnet import ResNet
from tests.networks.pictures import pictures


def last(tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [2, 3])
def test_a_convolution_of_2x2_pixels_is_a_product_of_matrices(side: int) -> None:
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=False)
    x, gradient = last(torch.randn(4, 5, side, side)).requires_grad_(), torch.randn(4, 7, side, side)
    ours, theirs = (
        [y, *torch.autograd.grad(y, [x, conv.weight], gradient)]
        for y in (convolved(conv, x), F.conv2d(x, conv.weight, padding=1))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("padding", [0, 1])
def test_pooled_is_the_largest_of_four(padding: int) -> None:
    conv, x = nn.Conv2d(5, 7, 3, padding=padding, bias=False), last(torch.randn(4, 5, 8, 9))
    torch.testing.assert_close(pooled(conv, x), F.max_pool2d(conv(x), 2))


@pytest.mark.parametrize("units", [False, True])
def test_the_filters_of_small_images_learn_by_products_where_there_are_matrix_units(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    monkeypatch.setattr(bfloat16, "MATRIX_UNITS", units)
    monkeypatch.setattr(tap_products, "LEAST_CHANNELS", 16)
    conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    x = last(torch.randn(4, 32, 3, 3), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, plain = convolved(conv, x), conv(x)
    assert y.grad_fn is not None
    assert (y.grad_fn.name() == "_ConvBackward") == units
    assert torch.equal(y, plain)
    assert y.is_contiguous(memory_format=torch.channels_last)


MODELS: dict[str, tuple[Callable[[], ConvNet | ResNet], int, list[str]]] = {
    "convnet": (lambda: ConvNet(width=48), 32, ["pool 48", "pool 192"]),
    "resnet": (ResNet, 32, ["pool 64", "128", "128", "pool 128", "pool 256", "512", "512"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_take_winograds_in_bf16_and_compute_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, least, expected = MODELS[name]
    torch.manual_seed(0)
    model = make().to(memory_format=torch.channels_last).eval()
    model.whiten(pictures(50))
    images, calls = last(pictures(4), torch.bfloat16), []
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", least)

    def counted(function: Any, kind: str) -> Any:
        def called(x: torch.Tensor, weight: torch.Tensor, *, padding: int = 0) -> torch.Tensor:
            calls.append(f"{kind}{x.shape[1]}")
            y: torch.Tensor = function(x, weight, padding=padding)
            return y

        return called

    with torch.autocast("cpu", dtype=torch.bfloat16):
        monkeypatch.setattr(winograd, "conv", counted(winograd.conv, ""))
        monkeypatch.setattr(winograd, "conv_max_pool", counted(winograd.conv_max_pool, "pool "))
        ours = model(images)
        assert calls == expected
        monkeypatch.setattr(winograd, "suits", lambda *_, **__: False)
        without = model(images)
    assert not torch.equal(ours, without)
    assert (ours - without).norm() < 0.05 * without.norm()
