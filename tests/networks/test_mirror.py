"""Against what a mirror image is: what makes of mirrored images what the network makes of images."""

import copy

import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks.mirror import symmetrise, symmetrise_gradients
from cifarfast.networks.resnet import ResNet
from cifarfast.randomness import generator
from tests.networks.pictures import pictures

LABELS = torch.arange(6)


def floats(model: ResNet) -> dict[str, torch.Tensor]:
    """The live weights and running statistics, without gradients."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def network(*, whitening: bool, mirrored: bool) -> ResNet:
    """One in which nothing is as alike as it begins: no bias zero, no scale and no variance one."""
    torch.manual_seed(0)
    model = ResNet(whitening=whitening, mirrored=mirrored)
    if whitening:
        model.whiten(pictures(20))
    draws = generator(0, "network")
    for name, tensor in floats(model).items():
        if tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape, generator=draws))
        elif mirrored and name == "head.weight":
            tensor.add_(torch.randn(tensor.shape, generator=draws))
    if mirrored:
        symmetrise(model)
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("whitening", [False, True])
def test_a_mirror_image_makes_the_same_of_mirrored_images(whitening: bool, training: bool) -> None:
    model = network(whitening=whitening, mirrored=False).train(training)
    other = copy.deepcopy(model)
    for name, tensor in floats(other).items():
        tensor.copy_(model.mirror_image(name, tensor))
        assert torch.equal(model.mirror_image(name, tensor), model.state_dict()[name])
    images = pictures(6)
    expected = model(images)
    torch.testing.assert_close(other(images.flip(3)), expected)
    for name, tensor in floats(model).items():
        torch.testing.assert_close(floats(other)[name], model.mirror_image(name, tensor))
    assert not torch.allclose(model(images.flip(3)), expected, atol=0.01)


@pytest.mark.parametrize("whitening", [False, True])
def test_a_mirrored_network_sees_both_alike(whitening: bool) -> None:
    images = pictures(6)
    torch.manual_seed(0)
    begun = ResNet(whitening=whitening, mirrored=True)
    if whitening:
        begun.whiten(images)
    for model in (begun.eval(), network(whitening=whitening, mirrored=True).eval()):
        answers = model(images)
        torch.testing.assert_close(model(images.flip(3)), answers)
        assert answers.std(0).max() > 0.001  # from image to image
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(model.mirror_image(name, parameter), parameter.detach(), rtol=0, atol=1e-6)
    assert sum(parameter.numel() for parameter in begun.parameters()) == 6_573_130


@pytest.mark.parametrize("whitening", [False, True])
def test_gradients_are_those_of_images_and_mirrored_images(whitening: bool) -> None:
    model, images = network(whitening=whitening, mirrored=True), pictures(6)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    pairs = [
        torch.autograd.grad(F.cross_entropy(model(seen), LABELS), list(trained.values()))
        for seen in (images, images.flip(3))
    ]
    torch.autograd.backward(F.cross_entropy(model(images), LABELS))
    symmetrise_gradients(model)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == list(trained)
    for (name, parameter), one, other in zip(trained.items(), *pairs, strict=True):
        assert parameter.grad is not None
        # Rounding decides which of two nearly equal pixels a pool lets through.
        mean = (one + other) / 2
        assert (parameter.grad - mean).norm() < 0.02 * mean.norm()
        assert (one - mean).norm() > 0.05 * mean.norm() or name == "head.bias"


def test_what_is_between_both_is_taken_away_from_weights_and_statistics() -> None:
    model = network(whitening=False, mirrored=False).eval()
    expected = {name: (tensor + model.mirror_image(name, tensor)) / 2 for name, tensor in floats(model).items()}
    counts = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in expected}
    symmetrise(model)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in {**expected, **counts}.items())
    assert len(expected) == len(state) - 8
