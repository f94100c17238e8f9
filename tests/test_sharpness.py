"""The way uphill, against the definition written out in float64."""

import pytest
import torch
from torch import nn

from cifarfast.randomness import generator
from cifarfast.sharpness import uphill


def network_and_gradients() -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    """Random weights, and as many random numbers, by name."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(80, 10)
    ).double()
    gradients = {}
    for number, (name, parameter) in enumerate(network.named_parameters()):
        draws = generator(0, "uphill", number)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        gradients[name] = torch.randn(parameter.shape, generator=draws).double()
    return network, gradients


def plane(network: nn.Module, gradients: dict[str, torch.Tensor], *, scale: float = 1.0) -> torch.Tensor:
    """A loss () that has these gradients everywhere, times `scale`."""
    return scale * torch.stack([(network.get_parameter(name) * by).sum() for name, by in gradients.items()]).sum()


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e8])
def test_convolutions_move_along_their_gradients_as_far_as_asked_and_nothing_else_does(scale: float) -> None:
    network, gradients = network_and_gradients()
    before = state(network)
    with uphill(network, plane(network, gradients, scale=scale), 0.3):
        moves = {name: tensor - before[name] for name, tensor in state(network).items()}
    assert {name for name, move in moves.items() if move.any()} == {"0.weight", "2.weight"}
    move, gradient = (
        torch.cat([tensors[name].flatten() for name in ("0.weight", "2.weight")]) for tensors in (moves, gradients)
    )
    assert move.norm().item() == pytest.approx(0.3)
    torch.testing.assert_close(move, 0.3 * gradient / gradient.norm())


def test_afterwards_weights_and_buffers_are_as_before() -> None:
    network, gradients = network_and_gradients()
    before = state(network)
    with uphill(network, plane(network, gradients), 0.3):
        network(torch.randn(2, 3, 8, 8, generator=generator(0, "images")).double())
        assert not torch.equal(network.get_buffer("1.running_mean"), before["1.running_mean"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_gradients_are_those_of_what_happens_within() -> None:
    network, gradients = network_and_gradients()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    with uphill(network, plane(network, gradients), 0.3):
        torch.autograd.backward(plane(network, gradients))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 1 + gradients[name])


def test_what_fails_within_leaves_nothing_moved() -> None:
    network, gradients = network_and_gradients()
    before = state(network)
    with pytest.raises(KeyboardInterrupt), uphill(network, plane(network, gradients), 0.3):
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_on_a_level_there_is_no_way() -> None:
    network, gradients = network_and_gradients()
    before = state(network)
    with uphill(network, plane(network, gradients, scale=0.0), 0.3):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_convolutions_that_are_not_trained_stay() -> None:
    network, gradients = network_and_gradients()
    first, second = network.get_parameter("0.weight").requires_grad_(False), network.get_parameter("2.weight")
    before = second.detach().clone(), first.clone()
    with uphill(network, plane(network, gradients), 0.3):
        assert (second - before[0]).norm().item() == pytest.approx(0.3)
        assert torch.equal(first, before[1])
