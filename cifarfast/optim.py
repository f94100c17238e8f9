"""The optimizer of a recipe, and how the schedule reaches it."""

import torch

from cifarfast.muon import Muon
from cifarfast.recipe import Recipe

BETA2 = 0.999


def build_optimizer(
    model: torch.nn.Module, recipe: Recipe, *, dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """What trains a network. It can be told on the device, by `found_inf`, to leave everything untouched.

    That is what keeps non-finite gradients out of the weights without waiting for the device. `adam` is Adam (Kingma
    and Ba, arXiv:1412.6980) with the L2 penalty on every parameter, as one fused kernel. `muon` is `Muon`: orthogonal
    steps of the filters and of every other matrix within the network, ordinary ones of the head and of the rest, the
    biases (and trained scales) of BatchNorm, at rates of their own.

    Args:
        dtype: in which Muon multiplies matrices.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if recipe.optimizer == "muon":
        head = {name: parameter for name, parameter in named.items() if name.startswith("head.")}
        matrices = {name: parameter for name, parameter in named.items() if parameter.ndim > 1 and name not in head}
        rest = [parameter for name, parameter in named.items() if name not in matrices | head]
        parts = [(list(matrices.values()), True), (list(head.values()), False), (rest, False)]
        groups = [
            {"params": params, "lr": recipe.max_lr, "orthogonal": orthogonal, "weight_decay": recipe.weight_decay}
            for params, orthogonal in parts
        ]
        optimizer: torch.optim.Optimizer = Muon(groups, momentum=recipe.max_momentum, dtype=dtype)
    else:
        optimizer = torch.optim.Adam(
            named.values(),
            lr=recipe.max_lr,
            betas=(recipe.max_momentum, BETA2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    set_shares(optimizer, recipe)
    set_hyperparameters(optimizer, lr=recipe.max_lr / recipe.div_factor, momentum=recipe.max_momentum)
    return optimizer


def set_shares(optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    """Make every parameter group keep the ratio to `max_lr` that the recipe has it at."""
    for group, lr in zip(optimizer.param_groups, (recipe.max_lr, recipe.head_lr, recipe.bias_lr), strict=False):
        group["share"] = lr / recipe.max_lr


def set_hyperparameters(optimizer: torch.optim.Optimizer, *, lr: float, momentum: float) -> None:
    """Set the learning rate of every parameter group, at its share, and Adam's beta1 or Muon's momentum."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def empty_state(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Room for what an optimizer of `build_optimizer` keeps of a parameter from its first step on.

    Adam's fused kernel walks raw memory, so the moments lie in it as the parameter does.
    """
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)}
    return {
        "step": torch.zeros((), device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }
