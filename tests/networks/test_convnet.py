import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from cifarfast.networks.convnet import ConvNet, Stage, Stem
from cifarfast.networks.gate import Gate
from cifarfast.networks.whitening import whitening_filters
from tests.networks.pictures import pictures

WIDTH = 8


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def model(request: pytest.FixtureRequest) -> ConvNet:
    torch.manual_seed(0)
    made = ConvNet(width=WIDTH, gated=request.param)
    made.stem.whiten(pictures(50))
    return made.eval()


@pytest.mark.parametrize(
    ("size", "sides"), [(32, (31, 15, 7, 3)), (24, (23, 11, 5, 2)), (17, (16, 8, 4, 2))], ids=["32", "24", "17"]
)
def test_the_shapes_are_those_described(model: ConvNet, size: int, sides: tuple[int, ...]) -> None:
    outputs: list[tuple[int, ...]] = []
    stages = [module for module in model.modules() if isinstance(module, Stem | Stage)]
    hooks = [stage.register_forward_hook(lambda _m, _i, out: outputs.append(tuple(out.shape))) for stage in stages]
    assert model(pictures(2, size)).shape == (2, 10)
    for hook in hooks:
        hook.remove()
    assert outputs == [(2, c, s, s) for c, s in zip((24, WIDTH, 4 * WIDTH, 4 * WIDTH), sides, strict=True)]


def test_the_forward_pass_is_the_one_described(model: ConvNet) -> None:
    """Against torch operations that share the weights: convolution, pool, BatchNorm, GELU, gate, max-pool, a ninth."""
    state = model.state_dict()
    images = pictures(3)

    def convolution(name: str, x: torch.Tensor, norm: str, *, pool: bool) -> torch.Tensor:
        x = F.conv2d(x, state[f"{name}.weight"], padding=1)
        x = F.max_pool2d(x, 2) if pool else x
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.gelu(F.batch_norm(x, mean, var, bias=state[f"{norm}.bias"]))

    x = F.gelu(F.conv2d(images, state["stem.filters"]))
    for stage in ("stage1", "stage2", "stage3"):
        x = convolution(f"{stage}.conv1", x, f"{stage}.norm1", pool=True)
        x = convolution(f"{stage}.conv2", x, f"{stage}.norm2", pool=False)
        if f"{stage}.gate.linear.weight" in state:
            means = x.flatten(2).mean(2)
            weights = 2 / (1 + torch.exp(-means @ state[f"{stage}.gate.linear.weight"].T))
            assert weights.std() > 0.001
            x = x * weights[:, :, None, None]
    expected = x.flatten(2).max(2).values @ state["head.weight"].T / 9
    torch.testing.assert_close(model(images), expected)


def test_convolutions_begin_as_the_identity_on_their_first_channels() -> None:
    model, seen = ConvNet(width=32), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            images = torch.randn(2, module.in_channels, 5, 5)
            same = min(module.in_channels, module.out_channels)
            output = module(F.pad(images, (1, 1, 1, 1))) if module.padding == (0, 0) else module(images)
            torch.testing.assert_close(output[:, :same], images[:, :same], msg=name)
            assert module.out_channels == same or output[:, same:].std() > 0.1
            seen.append((module.in_channels, module.out_channels))
    assert seen == [(24, 32), (32, 32), (32, 128), (128, 128), (128, 128), (128, 128)]


def test_the_stem_answers_with_whitened_patches_and_their_negatives() -> None:
    images, stem = pictures(20), Stem()
    stem.whiten(images)
    filters = whitening_filters(images, 2).float()
    torch.testing.assert_close(stem.filters, torch.cat([filters, -filters]))
    answers = stem(images)
    assert answers.shape == (20, 24, 31, 31)
    torch.testing.assert_close(answers[:, 12:], F.gelu(-F.conv2d(images, filters)))


def test_nothing_of_the_stem_is_trained_and_nothing_scales_after_a_norm(model: ConvNet) -> None:
    names = {name for name, _ in model.named_parameters()}
    parts = {f"stage{n}.{part}{m}" for n in (1, 2, 3) for m in (1, 2) for part in ("conv", "norm")}
    if isinstance(model.stage1.gate, Gate):
        parts |= {f"stage{n}.gate.linear" for n in (1, 2, 3)}
    assert names == {"head.weight"} | {f"{part}.{'bias' if 'norm' in part else 'weight'}" for part in parts}
    assert not any("norm" in name and name.endswith("weight") for name in model.state_dict())
    before = model.stem.filters.clone()
    torch.autograd.backward(model(pictures(2)).sum())
    assert not model.stem.filters.requires_grad
    assert torch.equal(model.stem.filters, before)


def test_saved_and_loaded_it_answers_the_same(model: ConvNet) -> None:
    images = pictures(4)
    other = ConvNet(width=WIDTH, gated=isinstance(model.stage1.gate, Gate)).eval()
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(other(images), model(images))


def test_running_statistics_follow_quickly() -> None:
    model = ConvNet(width=WIDTH)
    model.stem.whiten(pictures(4))
    images = pictures(6)
    x = F.max_pool2d(F.conv2d(model.stem(images), model.stage1.conv1.weight, padding=1), 2)
    model(images)
    mean = model.stage1.norm1.running_mean
    assert mean is not None
    torch.testing.assert_close(mean, 0.4 * x.mean((0, 2, 3)))
