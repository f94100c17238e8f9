from dataclasses import replace

import pytest
import torch

from cifarfast.model import build_model
from cifarfast.muon import Muon
from cifarfast.optim import build_optimizer, empty_state, set_hyperparameters
from cifarfast.recipe import Recipe

MUON = Recipe(optimizer="muon", max_lr=0.2, head_lr=0.5, bias_lr=0.05, div_factor=4.0, max_momentum=0.7)
CONVNET = replace(MUON, network="convnet", width=4, dropout=0.0)


def test_it_is_adam_with_l2_and_cycled_beta1() -> None:
    """Against the update written out: Kingma and Ba, algorithm 1, with the penalty in the gradient."""
    model = torch.nn.Linear(3, 2, bias=False).double()
    weight = model.weight.detach().clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    optimizer = build_optimizer(model, Recipe(weight_decay=0.1))
    product = 1.0
    for step, (lr, momentum) in enumerate([(0.01, 0.95), (0.02, 0.85), (0.005, 0.9)], start=1):
        gradient = torch.full_like(weight, 0.3 * step)
        model.weight.grad = gradient.clone()
        set_hyperparameters(optimizer, lr=lr, momentum=momentum)
        optimizer.step()
        gradient = gradient + 0.1 * weight
        first = momentum * first + (1 - momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        product = momentum**step  # torch corrects the bias with the present beta1, not with the product of all
        weight = weight - lr * (first / (1 - product)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(model.weight.detach(), weight)


@pytest.mark.parametrize(
    ("recipe", "matrices"),
    [(CONVNET, 6), (replace(CONVNET, squeeze_excitation=True), 9), (MUON, 8)],
    ids=["convnet", "gated", "resnet"],
)
def test_muon_turns_the_matrices_and_moves_head_and_biases(recipe: Recipe, matrices: int) -> None:
    model = build_model(recipe, seed=0)
    optimizer = build_optimizer(model, recipe)
    assert isinstance(optimizer, Muon)
    names = {parameter: name for name, parameter in model.named_parameters()}
    turned, heads, biases = ([names[parameter] for parameter in group["params"]] for group in optimizer.param_groups)
    assert [group["orthogonal"] for group in optimizer.param_groups] == [True, False, False]
    assert sorted([*turned, *heads, *biases]) == sorted(names.values())
    within = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    assert turned == [f"{name}.weight" for name in within if name != "head"]
    assert len(turned) == matrices
    assert heads == [name for name in names.values() if name.startswith("head.")]
    assert all("norm" in name for name in biases)


def test_every_group_of_muon_peaks_at_its_own_rate_and_keeps_its_ratio() -> None:
    optimizer = build_optimizer(torch.nn.Conv2d(1, 1, 1), MUON)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.125, 0.0125])
    for share, momentum in ((1.0, 0.6), (0.5, 0.8)):
        set_hyperparameters(optimizer, lr=share * 0.2, momentum=momentum)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([share * 0.2, share * 0.5, share * 0.05])
        assert [group["momentum"] for group in optimizer.param_groups] == [momentum] * 3


def test_muon_multiplies_in_the_dtype_asked_for() -> None:
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = torch.nn.Conv2d(4, 5, 3, bias=False)
        torch.nn.init.dirac_(model.weight)
        optimizer = build_optimizer(model, MUON, dtype=dtype)
        model.weight.grad = torch.arange(180.0).view(5, 4, 3, 3).sin()
        optimizer.step()
        moved[dtype] = model.weight.detach()
    assert not torch.equal(moved[torch.float32], moved[torch.bfloat16])
    torch.testing.assert_close(moved[torch.float32], moved[torch.bfloat16], rtol=0, atol=0.01)


@pytest.mark.parametrize("recipe", [Recipe(), MUON], ids=["adam", "muon"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_room_for_its_state_is_what_the_first_step_makes(recipe: Recipe, layout: torch.memory_format) -> None:
    model = torch.nn.Conv2d(4, 5, 3).to(memory_format=layout)
    optimizer = build_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in model.parameters():
        made, room = optimizer.state[parameter], empty_state(optimizer, parameter)
        assert room.keys() == made.keys()
        for key, tensor in made.items():
            assert (room[key].shape, room[key].dtype) == (tensor.shape, tensor.dtype)
            assert room[key].stride() == tensor.stride()
            assert not room[key].requires_grad
            assert not room[key].any()
