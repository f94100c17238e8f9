"""The way uphill, against the definition written out in float64."""

import pytest
import torch
from torch import nn

from cifarfast.randomness import generator
from cifarfast.sharpness import uphill


def network_with_gradients(scale: float = 1.0) -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(80, 10)
    ).double()
    for number, parameter in enumerate(network.parameters()):
        draws = generator(0, "uphill", number)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        parameter.grad = scale * torch.randn(parameter.shape, generator=draws).double()
    return network


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e8])
def test_convolutions_move_along_their_gradients_as_far_as_asked_and_nothing_else_does(scale: float) -> None:
    network = network_with_gradients(scale)
    before = state(network)
    with uphill(network, 0.3):
        moves = {name: tensor - before[name] for name, tensor in state(network).items()}
    assert {name for name, move in moves.items() if move.any()} == {"0.weight", "2.weight"}
    move = torch.cat([moves["0.weight"].flatten(), moves["2.weight"].flatten()])
    gradient = torch.cat([network.get_parameter(name).grad.flatten() for name in ("0.weight", "2.weight")])  # type: ignore[union-attr]
    assert move.norm().item() == pytest.approx(0.3)
    torch.testing.assert_close(move, 0.3 * gradient / gradient.norm())


def test_afterwards_weights_and_buffers_are_as_before_and_gradients_as_they_were_left() -> None:
    network = network_with_gradients()
    before = state(network)
    with uphill(network, 0.3):
        network.zero_grad()
        torch.autograd.backward(network(torch.randn(2, 3, 8, 8, generator=generator(0, "images")).double()).sum())
        assert not torch.equal(network.get_buffer("1.running_mean"), before["1.running_mean"])
        gradients = [parameter.grad for parameter in network.parameters()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [parameter.grad for parameter in network.parameters()] == gradients


def test_what_fails_within_leaves_nothing_moved() -> None:
    network = network_with_gradients()
    before = state(network)
    with pytest.raises(KeyboardInterrupt), uphill(network, 0.3):
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_without_a_gradient_there_is_no_way() -> None:
    network = network_with_gradients(scale=0.0)
    before = state(network)
    with uphill(network, 0.3):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_convolutions_that_are_not_trained_stay() -> None:
    network = network_with_gradients()
    first, second = network.get_parameter("0.weight"), network.get_parameter("2.weight")
    first.requires_grad_(False).grad = None
    before = second.detach().clone(), first.detach().clone()
    with uphill(network, 0.3):
        assert (second - before[0]).norm().item() == pytest.approx(0.3)
        assert torch.equal(first, before[1])
