"""The network of a recipe: built, and counted."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifarfast.networks import IMAGE_SHAPE
from cifarfast.networks.convnet import ConvNet, Stem
from cifarfast.networks.resnet import ConvBlock, ResNet
from cifarfast.randomness import seed_of
from cifarfast.recipe import Recipe

Network: TypeAlias = ResNet | ConvNet


def build_model(recipe: Recipe, *, seed: int) -> Network:
    """The untrained network on the CPU, a function of the recipe and of `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "init"))
        return empty_model(recipe)


def empty_model(recipe: Recipe) -> Network:
    """The network with whatever weights, on torch's current device."""
    model: Network
    if recipe.network == "convnet":
        model = ConvNet(width=recipe.width, gated=recipe.squeeze_excitation)
    else:
        model = ResNet(
            dropout=recipe.dropout,
            whitening=recipe.whitening,
            norm_scale=recipe.norm_scale,
            mirrored=recipe.mirrored,
        )
    if recipe.ghost_batches > 1:
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            assert norm.momentum is not None
            # Several updates a step: together they let the running statistics forget as much as one would.
            norm.momentum = 1 - (1 - norm.momentum) ** (1 / recipe.ghost_batches)
    return model


@dataclass(frozen=True)
class Layer:
    """One line of the layer table; a multiply-add counts as two FLOPs."""

    name: str
    output: tuple[int, ...]
    parameters: int
    flops: int


def layer_table(recipe: Recipe) -> list[Layer]:
    """Output shape, trained parameters and forward FLOPs for one image of every convolution, norm and the head.

    In the ResNet a block is one layer.
    """
    model = meta_model(recipe).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    rows = (ConvBlock, nn.Linear) if isinstance(model, ResNet) else (Stem, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    modules = {name: m for name, m in model.named_modules() if isinstance(m, rows)}
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *IMAGE_SHAPE, device="meta"))
    counts = counter.get_flop_counts()
    return [
        Layer(
            name=name,
            output=shapes[name],
            parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
            flops=sum(counts.get(f"{type(model).__name__}.{name}", {}).values()),
        )
        for name, module in modules.items()
    ]


def flops_per_image(recipe: Recipe) -> dict[str, int]:
    """FLOPs of one image: `forward`, and `train` for forward and backward; a multiply-add counts as two."""
    images = torch.empty(1, *IMAGE_SHAPE, device="meta")
    with FlopCounterMode(display=False) as forward:
        scores = meta_model(recipe)(images)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.backward(scores.sum())
    done = forward.get_total_flops()
    return {"forward": done, "train": done + backward.get_total_flops()}


def meta_model(recipe: Recipe) -> Network:
    """The network without memory for its weights: names, shapes and dtypes, whatever their size."""
    with torch.device("meta"):
        return empty_model(recipe)
