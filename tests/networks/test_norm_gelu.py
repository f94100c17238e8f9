from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks import bfloat16, norm_gelu, norm_gelu_passes
from cifarfast.networks.convnet import BatchNorm, ConvNet
from cifarfast.networks.gate import Gate
from tests.networks.pictures import pictures
from tests.networks.threads import with_threads

Layer = Callable[[nn.BatchNorm2d, torch.Tensor], torch.Tensor]


def plain(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(norm(x))


def plain_pooled(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    return plain(norm, F.max_pool2d(x, 2))


WAYS: dict[str, tuple[Layer, Layer]] = {
    "norm_gelu": (norm_gelu.norm_gelu, plain),
    "pool_norm_gelu": (norm_gelu.pool_norm_gelu, plain_pooled),
}
"""Ours and torch's."""
both = pytest.mark.parametrize("way", WAYS)


def last(tensor: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


def new_norm(channels: int, dtype: torch.dtype = torch.float32) -> BatchNorm:
    norm = BatchNorm(channels)
    with torch.no_grad():
        norm.bias.copy_(torch.randn(channels, generator=torch.Generator().manual_seed(1)))
    return norm.to(dtype)


def results(layer: Layer, norm: nn.BatchNorm2d, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = layer(norm, x)
    of_x, of_bias = torch.autograd.grad(y, [x, norm.bias], gradient.to(y.dtype))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return {"y": y.detach(), "x": of_x, "bias": of_bias, "mean": norm.running_mean, "variance": norm.running_var}


def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes that are run from now on."""
    names: list[str] = []

    def run(kernel: Callable[..., None], *tensors: torch.Tensor) -> None:
        names.append(kernel.__name__)
        bfloat16.run(kernel, *tensors)

    monkeypatch.setattr(norm_gelu, "run", run)
    return names


@both
@pytest.mark.parametrize(("batch", "channels", "height", "width"), [(3, 48, 10, 4), (2, 80, 6, 8), (40, 5, 2, 2)])
def test_it_is_nearer_to_the_exact_values_than_torch(
    way: str, batch: int, channels: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = WAYS[way]
    random = torch.Generator().manual_seed(0)
    x = last(3 * torch.randn(batch, channels, height, width, generator=random) + 1)
    gradient = last(torch.randn(theirs(new_norm(channels), x).shape, generator=random))
    exact = results(theirs, new_norm(channels, torch.float64), x.double(), gradient.double())
    torchs = results(theirs, new_norm(channels), x, gradient)
    names = called(monkeypatch)
    mine = results(ours, new_norm(channels), x, gradient)
    assert names

    def error(of: dict[str, torch.Tensor], name: str) -> float:
        return float((of[name].double() - exact[name]).norm() / exact[name].norm())

    for name in exact:
        assert error(mine, name) < max(1.2 * error(torchs, name), 1e-6), name
        assert (mine[name].dtype, mine[name].shape) == (torchs[name].dtype, torchs[name].shape)
    assert mine["y"].is_contiguous(memory_format=torch.channels_last)


def test_gelu_is_exact_to_a_bit_of_bf16_everywhere() -> None:
    """All finite values of bf16 as they are, which a mean of zero and a deviation of one leave."""
    bits = np.arange(2**16).astype(np.uint16)
    x = torch.from_numpy(bits).view(torch.bfloat16)
    x = x[x.isfinite() & (x.abs() < 1e18)][:, None, None]  # whose squares are finite too
    y, means, norm = torch.empty_like(x), torch.empty(len(x), 1), torch.tensor([[0.0], [1.0], [0.0]])
    bfloat16.run(norm_gelu_passes.activate, x, norm, torch.zeros(3, 2, 1), y, means)
    exact = F.gelu(x.double())
    assert ((y.double() - exact).abs() <= exact.abs() / 256 + 3e-7).all()
    assert ((means - exact[:, 0]).abs() <= exact[:, 0].abs() / 1e5 + 1e-6).all()


def test_slopes_are_those_of_gelu() -> None:
    x = torch.linspace(-8, 8, 4001).bfloat16()[:, None, None]
    d, sums, norm = torch.empty_like(x), torch.zeros(3, 2, 1), torch.tensor([[0.0], [1.0], [0.0]])
    lines = torch.tensor([0.25, 0.5])[:, None, None].repeat(1, len(x), 1)
    bfloat16.run(norm_gelu_passes.slopes, x, 2 * torch.ones_like(x), norm, lines, sums, d)  # 0.25 * 2 + 0.5 is one
    wide = x.double().requires_grad_()
    exact = torch.autograd.grad(F.gelu(wide).sum(), wide)[0]
    assert ((d.double() - exact).abs() <= exact.abs() / 256 + 1e-6).all()
    assert float(sums[:, 0].sum()) == pytest.approx(float(exact.sum()), rel=1e-5)
    assert float(sums[:, 1].sum()) == pytest.approx(float((exact * x).sum()), rel=1e-5)


def test_of_equal_pixels_the_first_gets_the_gradient() -> None:
    x = last(torch.randint(0, 2, (4, 7, 6, 6), generator=torch.Generator().manual_seed(0)).float())
    gradient = last(torch.randn(4, 7, 3, 3))
    mine, torchs = (results(layer, new_norm(7), x, gradient)["x"] for layer in WAYS["pool_norm_gelu"])
    assert torch.equal(mine != 0, torchs != 0)
    assert (mine != 0).sum() == 4 * 7 * 9


@both
def test_the_number_of_threads_changes_no_bit(way: str) -> None:
    x, gradient = last(torch.randn(5, 20, 8, 8)), last(torch.randn(5, 20, *((4, 4) if "pool" in way else (8, 8))))
    one, two = with_threads(lambda: results(WAYS[way][0], new_norm(20), x, gradient))
    assert all(torch.equal(one[name], two[name]) for name in one)


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(way: str, value: float) -> None:
    x = last(torch.randn(2, 3, 4, 4))
    x[0, 1, 2, 2] = value
    found = results(WAYS[way][0], new_norm(3), x, last(torch.ones(2, 3, *((2, 2) if "pool" in way else (4, 4)))))
    assert [bool(channel.isnan().all()) for channel in found["y"].unbind(1)] == [False, True, False]
    assert [bool(channel.isnan()) for channel in found["bias"]] == [False, True, False]


@both
def test_a_channel_of_one_value_has_no_variance_below_zero(way: str) -> None:
    x = last(torch.full((4, 3, 4, 4), 3.140625))
    found = results(WAYS[way][0], new_norm(3), x, last(torch.ones(4, 3, *((2, 2) if "pool" in way else (4, 4)))))
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert torch.equal(found["variance"], torch.full((3,), 0.6))  # of one, at a momentum of 0.4


@both
def test_batches_are_counted(way: str) -> None:
    norm = new_norm(3)
    WAYS[way][0](norm, last(torch.randn(2, 3, 4, 4)))
    assert int(norm.num_batches_tracked or 0) == 1


def gated(ours: bool, norm: BatchNorm, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a gate after all that gives, and the gradients."""
    gate, x = Gate(len(norm.bias)), x.clone().requires_grad_()
    with torch.no_grad():
        gate.linear.weight.copy_(torch.randn(gate.linear.weight.shape, generator=torch.Generator().manual_seed(2)))
    gate.to(norm.bias.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = norm_gelu.norm_gelu_gate(norm, gate, x) if ours else gate(plain(norm, x))
    gradients = torch.autograd.grad(y, [x, norm.bias, gate.linear.weight], gradient.to(y.dtype))
    return {"y": y.detach(), **dict(zip(("x", "bias", "weight"), gradients, strict=True))}


@pytest.mark.parametrize(("batch", "channels", "height", "width"), [(3, 48, 10, 4), (20, 80, 5, 7), (40, 5, 2, 2)])
def test_a_gate_is_nearer_to_the_exact_values_than_torch(batch: int, channels: int, height: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = last(3 * torch.randn(batch, channels, height, width, generator=random) + 1)
    gradient = last(torch.randn(x.shape, generator=random))
    exact = gated(False, new_norm(channels, torch.float64), x.double(), gradient.double())
    torchs, mine = (gated(ours, new_norm(channels), x, gradient) for ours in (False, True))

    def error(of: dict[str, torch.Tensor], name: str) -> float:
        return float((of[name].double() - exact[name]).norm() / exact[name].norm())

    for name in exact:
        assert error(mine, name) < 1.1 * error(torchs, name), name
        assert (mine[name].dtype, mine[name].shape) == (torchs[name].dtype, torchs[name].shape)
    assert mine["y"].is_contiguous(memory_format=torch.channels_last)


def test_the_number_of_threads_changes_no_bit_of_a_gate() -> None:
    x, gradient = last(torch.randn(5, 20, 8, 8)), last(torch.randn(5, 20, 8, 8))
    one, two = with_threads(lambda: gated(True, new_norm(20), x, gradient))
    assert all(torch.equal(one[name], two[name]) for name in one)


ELSEWHERE: dict[str, Callable[[BatchNorm, torch.Tensor], tuple[nn.BatchNorm2d, torch.Tensor]]] = {
    "fp32": lambda norm, x: (norm, x.float()),
    "contiguous": lambda norm, x: (norm, x.contiguous()),
    "one image": lambda norm, x: (norm, x[:1]),
    "evaluation": lambda norm, x: (norm.eval(), x),
    "odd sides": lambda norm, x: (norm, last(x[..., 1:, 1:])),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_elsewhere_it_is_torch(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, gate = called(monkeypatch), Gate(3)
    norm, x = ELSEWHERE[where](new_norm(3), last(torch.randn(4, 3, 6, 6)))
    if where != "odd sides":
        with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            assert torch.equal(norm_gelu.norm_gelu_gate(norm, gate, x), gate(plain(norm, x)))
    assert torch.equal(norm_gelu.pool_norm_gelu(norm, x), plain_pooled(norm, x)) or where == "odd sides"
    assert not {"pool"} & set(names)
    assert where == "odd sides" or not names


def test_the_network_takes_it_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six layers of it: its gradients are as far from the exact ones as those that torch's operations give."""
    images, labels = pictures(64), torch.arange(64) % 10
    names, found = called(monkeypatch), {}
    for way in ("exact", "torch", "ours"):
        torch.manual_seed(0)
        model = ConvNet(width=16, gated=True).to(memory_format=torch.channels_last)
        model.whiten(images)
        if way == "torch":
            monkeypatch.setattr(norm_gelu, "_suits", lambda *_: False)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "exact"):
            loss = F.cross_entropy(model(last(images, torch.float32 if way == "exact" else torch.bfloat16)), labels)
        found[way] = torch.cat([one.flatten() for one in torch.autograd.grad(loss.float(), list(model.parameters()))])
        monkeypatch.undo()
        if way == "torch":
            assert not names
            names = called(monkeypatch)
    assert len(names) == 6 * 2 + 6 * 2 + 3 * 2
    error = {way: float((found[way] - found["exact"]).norm() / found["exact"].norm()) for way in ("torch", "ours")}
    assert error["ours"] < 1.3 * error["torch"]
