"""The optimizer of a recipe, and how the schedule reaches it."""

import torch

from cifarfast.recipe import Recipe

BETA2 = 0.999


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Adam:
    """Adam (Kingma and Ba, arXiv:1412.6980) with the L2 penalty on every parameter, as one fused kernel.

    The fused kernel can be told on the device to leave everything untouched, which is what keeps
    non-finite gradients out of the weights without waiting for the device.
    """
    return torch.optim.Adam(
        model.parameters(),
        lr=recipe.max_lr / recipe.div_factor,
        betas=(recipe.max_momentum, BETA2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def set_hyperparameters(optimizer: torch.optim.Optimizer, *, lr: float, momentum: float) -> None:
    """Set the learning rate and Adam's beta1 of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["betas"] = (momentum, group["betas"][1])


def empty_state(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Room for what this Adam keeps of a parameter from its first step on.

    The fused kernel walks raw memory, so the moments lie in it as the parameter does.
    """
    return {
        "step": torch.zeros((), device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }
