"""Muon against its update written out in float64, and the orthogonal part of it against the SVD."""

import math

import pytest
import torch

from cifarfast.muon import Muon, orthogonalised
from cifarfast.randomness import generator

MOMENTUM, DECAY = 0.6, 0.1
RATES = (0.2, 0.1, 0.05)
"""Learning rates of three steps."""


def normal(*shape: int, number: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, "muon", number))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (16, 16), (8, 5, 3, 3), (80, 5, 3, 3)])
def test_singular_vectors_stay_and_large_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    tensor = normal(*shape).double()
    left, values, right = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    found = orthogonalised([tensor], torch.float64)[0]
    assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
    inner = left.T @ found.flatten(1) @ right.T
    scaled = inner.diagonal()
    torch.testing.assert_close(inner, torch.diag(scaled), rtol=0, atol=1e-6)
    torch.testing.assert_close(left @ inner @ right, found.flatten(1), rtol=0, atol=1e-6)
    large = values > 0.02 * values.norm()
    assert large.sum() >= len(values) - 1  # the smallest of a square matrix may be anything
    assert ((scaled > 0.68) & (scaled < 1.21))[large].all()


def test_small_singular_values_stay_small_and_nothing_at_all_stays_nothing() -> None:
    left, _, right = torch.linalg.svd(normal(6, 9), full_matrices=False)
    matrix = left @ torch.diag(torch.tensor([1.0, 0.9, 0.8, 1e-3, 1e-4, 0.0])) @ right
    (found,) = orthogonalised([matrix], torch.float32)
    values = torch.linalg.svdvals(found)
    assert (values[:3] > 0.68).all()
    assert (values[3:] < 0.05).all()
    assert not orthogonalised([torch.zeros(4, 6)], torch.float32)[0].any()


def test_the_length_of_a_tensor_and_its_layout_do_not_matter() -> None:
    tensor = normal(12, 6, 3, 3)
    others = [1e4 * tensor, tensor.to(memory_format=torch.channels_last)]
    expected, *found = orthogonalised([tensor, *others], torch.float32)
    torch.testing.assert_close(found, [expected, expected])


def test_each_of_many_comes_out_as_it_does_alone() -> None:
    tensors = [normal(12, 6, 3, 3), normal(7, 30), normal(30, 12), normal(12, 12), normal(7, 9, number=1)]
    alone = [orthogonalised([tensor], torch.float32)[0] for tensor in tensors]
    torch.testing.assert_close(orthogonalised(tensors, torch.float32), alone)
    assert orthogonalised([], torch.float32) == []


def test_matrices_are_multiplied_in_the_dtype_asked_for() -> None:
    tensor = normal(12, 20)
    (rough,), (fine,) = (orthogonalised([tensor], dtype) for dtype in (torch.bfloat16, torch.float32))
    assert rough.dtype == torch.float32
    assert torch.equal(rough, rough.bfloat16().float())
    assert not torch.equal(fine, fine.bfloat16().float())
    torch.testing.assert_close(rough, fine, rtol=0, atol=0.05)


def stepped(parameter: torch.Tensor, *, orthogonal: bool) -> Muon:
    group = {"params": [parameter], "lr": 1.0, "orthogonal": orthogonal, "weight_decay": DECAY}
    return Muon([group], momentum=MOMENTUM, dtype=torch.float64)


@pytest.mark.parametrize(("orthogonal", "shape"), [(True, (6, 4, 3, 3)), (False, (10, 6)), (False, (6,))])
def test_steps_are_those_of_the_update_written_out(orthogonal: bool, shape: tuple[int, ...]) -> None:
    """Nesterov as torch.optim.SGD has it, the filters brought to their norm before each step, not after it."""
    parameter = torch.nn.Parameter(normal(*shape).double())
    optimizer = stepped(parameter, orthogonal=orthogonal)
    weight, kept = parameter.detach().clone(), torch.zeros(shape, dtype=torch.float64)
    for number, lr in enumerate(RATES, start=1):
        gradient = normal(*shape, number=number).double()
        parameter.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        kept = MOMENTUM * kept + gradient
        direction = gradient + MOMENTUM * kept
        if orthogonal:
            norm = math.sqrt(sum(value**2 for value in weight.flatten().tolist()))
            weight = weight * math.sqrt(shape[0]) / norm - lr * orthogonalised([direction], torch.float64)[0]
        else:
            weight = weight - lr * (direction + DECAY * weight)
        torch.testing.assert_close(parameter.detach(), weight)
        torch.testing.assert_close(optimizer.state[parameter]["momentum_buffer"], kept)
        assert torch.equal(parameter.grad, gradient)


def test_without_decay_the_ordinary_steps_are_torchs() -> None:
    ours, theirs = (torch.nn.Parameter(normal(10, 6)) for _ in range(2))
    optimizer = stepped(ours, orthogonal=False)
    reference = torch.optim.SGD([theirs], lr=1.0, momentum=MOMENTUM, nesterov=True)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    for number, lr in enumerate(RATES, start=1):
        for parameter, chosen in ((ours, optimizer), (theirs, reference)):
            parameter.grad = normal(10, 6, number=number)
            chosen.param_groups[0]["lr"] = lr
            chosen.step()
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1.0])
def test_a_step_that_is_found_bad_changes_no_bit(orthogonal: bool, begun: bool, poison: float) -> None:
    parameter = torch.nn.Parameter(normal(6, 4, 3, 3).to(memory_format=torch.channels_last))
    optimizer = stepped(parameter, orthogonal=orthogonal)
    if begun:
        parameter.grad = normal(6, 4, 3, 3, number=1)
        optimizer.step()
    before = parameter.detach().clone()
    kept = optimizer.state[parameter]["momentum_buffer"].clone() if begun else torch.zeros_like(before)
    parameter.grad = normal(6, 4, 3, 3, number=2)
    parameter.grad[1, 2] = poison
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(parameter, before)
    assert torch.equal(optimizer.state[parameter]["momentum_buffer"], kept)
    optimizer.found_inf = torch.zeros(())
    parameter.grad = normal(6, 4, 3, 3, number=3)
    optimizer.step()
    assert not torch.equal(parameter, before)
    assert torch.isfinite(parameter).all()


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    trained, idle = (torch.nn.Parameter(normal(6, 4)) for _ in range(2))
    groups = [{"params": [trained, idle], "lr": 0.1, "orthogonal": True}]
    optimizer = Muon(groups, momentum=MOMENTUM, dtype=torch.float32)
    trained.grad = normal(6, 4, number=1)
    before = idle.detach().clone()
    optimizer.step()
    assert torch.equal(idle, before)
    assert idle not in optimizer.state
    assert not torch.equal(trained, before)
