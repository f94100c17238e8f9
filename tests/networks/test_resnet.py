import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.networks.resnet import BLOCK_SHAPES, ConvBlock, ResNet, draw_masks, drop
from cifarfast.networks.whitening import mirrored_whitening_filters, whitening_filters
from tests.networks.pictures import pictures

CPU = torch.device("cpu")


def test_parameters() -> None:
    assert sum(p.numel() for p in ResNet().parameters()) == 6_573_130


def test_whitened_filters_are_of_the_images_and_not_trained() -> None:
    torch.manual_seed(0)
    model, images = ResNet(whitening=True), pictures(20)
    random = model.prep.conv.weight.clone()
    model.whiten(images)
    whitened, weight = whitening_filters(images, 3).float(), model.prep.conv.weight
    torch.testing.assert_close(weight[:54], torch.cat([whitened, -whitened]))
    answers = F.conv2d(images, weight)
    torch.testing.assert_close(answers.square().mean((0, 2, 3)), torch.ones(64), atol=0.1, rtol=0)
    # The ten others are as different from each other as random directions are.
    shares = F.normalize(random[54:].flatten(1))
    torch.testing.assert_close(weight[54:].flatten(1), shares @ whitened.flatten(1))
    torch.autograd.backward(model(images).sum())
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == ["prep.conv.weight"]
    assert sum(p.numel() for p in model.parameters()) == 6_573_130


def test_whitened_filters_of_a_mirrored_network_are_as_many_and_go_in_pairs() -> None:
    torch.manual_seed(0)
    model, images = ResNet(whitening=True, mirrored=True), pictures(20)
    model.whiten(images)
    whitened, weight = torch.cat(mirrored_whitening_filters(images, 3)).float(), model.prep.conv.weight
    torch.testing.assert_close(weight[:54], torch.cat([whitened, -whitened]))
    answers = F.conv2d(torch.cat([images, images.flip(3)]), weight)
    torch.testing.assert_close(answers.square().mean((0, 2, 3)), torch.ones(64), atol=0.1, rtol=0)
    mixtures = F.normalize(weight[54:59].flatten(1))
    assert (mixtures @ mixtures.T - torch.eye(5)).abs().max() < 0.9
    torch.testing.assert_close(weight[59:], weight[54:59].flip(3))


def test_scales_of_batchnorm_are_one_where_they_are_not_trained() -> None:
    model = ResNet(norm_scale=False)
    torch.autograd.backward(model(pictures(4)).sum())
    still = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is None}
    assert list(still) == [name for name, _ in model.named_parameters() if name.endswith("norm.weight")]
    assert len(still) == 8
    assert all((scale == 1).all() for scale in still.values())
    assert sum(p.numel() for p in model.parameters()) == 6_573_130


def test_the_blocks_put_out_the_shapes_that_masks_are_drawn_for() -> None:
    outputs: list[tuple[int, ...]] = []
    model = ResNet().eval()
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(tuple(output.shape[1:])))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert tuple(outputs) == BLOCK_SHAPES


def test_the_forward_pass_is_the_one_described() -> None:
    """Against plain torch layers that share the weights: convolution, pool, BatchNorm, ReLU, residuals."""
    model = ResNet().eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def block(part: nn.Module, x: torch.Tensor, *, pool: bool = False) -> torch.Tensor:
        assert isinstance(part, ConvBlock)
        x = F.conv2d(x, part.conv.weight, padding=1)
        return F.relu(part.norm(F.max_pool2d(x, 2) if pool else x))

    x = block(model.layer1, block(model.prep, images), pool=True)
    x = x + block(model.residual1.block2, block(model.residual1.block1, x))
    x = block(model.layer3, block(model.layer2, x, pool=True), pool=True)
    x = x + block(model.residual3.block2, block(model.residual3.block1, x))
    expected = model.head(F.max_pool2d(x, 4).flatten(1))
    torch.testing.assert_close(model(images), expected)


def test_masks_have_the_right_rate_and_layout() -> None:
    masks = draw_masks(64, 7, device=CPU)
    assert [tuple(mask.shape[1:]) for mask in masks] == list(BLOCK_SHAPES)
    for mask in masks:
        assert mask.dtype == torch.uint8
        assert mask.is_contiguous(memory_format=torch.channels_last)
        kept = (drop(torch.ones(mask.shape), mask, 0.07) > 0).float().mean().item()
        # 18/256 is dropped; five standard deviations of a mean of that many draws.
        rate = 18 / 256
        assert 1 - kept == pytest.approx(rate, abs=5 * (rate * (1 - rate) / mask.numel()) ** 0.5)


def test_masks_are_independent_and_a_function_of_their_seed() -> None:
    one, same, other = (draw_masks(32, seed, device=CPU) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    for mask, second in zip(one, other, strict=True):
        a, b = (mask < 18).float().flatten(), (second < 18).float().flatten()
        for left, right in ((a, b), (a[1:], a[:-1]), (a[8:], a[:-8]), (a[: len(a) // 2], a[len(a) // 2 :])):
            correlation = torch.corrcoef(torch.stack([left, right]))[0, 1].item()
            assert abs(correlation) < 5 / len(left) ** 0.5
    bytes_seen = torch.cat([mask.flatten() for mask in one]).bincount(minlength=256)
    assert bytes_seen.min() > 0.95 * bytes_seen.float().mean()


def test_dropout_keeps_the_mean_and_lets_gradients_through_the_kept() -> None:
    mask = draw_masks(64, 3, device=CPU)[0]
    x = torch.ones(mask.shape, requires_grad=True)
    dropped = drop(x, mask, 0.07)
    assert dropped.mean().item() == pytest.approx(1.0, abs=1e-3)
    torch.autograd.backward(dropped.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_without_masks_dropout_is_torchs_and_off_in_evaluation() -> None:
    model, images = ResNet(dropout=0.5), torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
