"""The network in training: forward, forward and backward, and the whole optimizer step; ways of dropout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, NoReturn

import pytest
import torch

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import (
    BASELINE,
    Layout,
    Mode,
    Precision,
    amp_precision,
    device_name,
    every_execution,
    execution,
    noise,
)
from cifarfast.device import Device, compile_cache, forget_compilations
from cifarfast.errors import UserError
from cifarfast.loaders import Batch
from cifarfast.model import build_model, flops_per_image
from cifarfast.networks.resnet import draw_masks
from cifarfast.randomness import seed_of
from cifarfast.recipe import Recipe
from cifarfast.step import TrainStep

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What compiling a step cost."""

    seconds: float | None
    """From the first call to its end; None where nothing was compiled."""
    cache: str | None
    """`cold` or `warm`, likewise."""


@pytest.mark.contest(group="forward", quick=4, full=6, baseline=BASELINE)
@every_execution("eager", "compiled")
def bench_forward(lab: Lab, precision: Precision, layout: Layout, mode: Mode) -> Entrant:
    """In training, so with dropout and with all that the backward pass would need kept."""
    step, batch, facts = _open(lab, precision, layout, mode)
    images, masks = step.inputs(batch, augmented=False, epoch=0, number=0)

    def once() -> None:
        step.forward(images, batch.labels, masks)

    return _entrant(once, facts, "forward")


@pytest.mark.contest(group="forward-backward", quick=4, full=6, baseline=BASELINE)
@every_execution("eager", "compiled")
def bench_forward_backward(lab: Lab, precision: Precision, layout: Layout, mode: Mode) -> Entrant:
    step, batch, facts = _open(lab, precision, layout, mode)
    images, masks = step.inputs(batch, augmented=False, epoch=0, number=0)

    def once() -> None:
        loss, _ = step.forward(images, batch.labels, masks)
        torch.autograd.backward(step.scaler.scale(loss))
        step.optimizer.zero_grad()

    return _entrant(once, facts, "train")


@pytest.mark.contest(group="step", quick=4, full=6, baseline=BASELINE)
@every_execution("eager", "compiled")
def bench_step(lab: Lab, precision: Precision, layout: Layout, mode: Mode) -> Entrant:
    """Augmentation, dropout masks, forward, backward, check of every value, update."""
    step, batch, facts = _open(lab, precision, layout, mode)
    step.capture(augmented=False)

    def once() -> None:
        step(batch, augmented=False, epoch=0, number=0, position=0)

    return _entrant(once, facts, "train")


@pytest.mark.contest(group="dropout", quick=3, full=6, baseline="ordinary-eager")
@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("dropout", ["ordinary", "masks", "none"])
def bench_dropout(lab: Lab, dropout: str, mode: Mode) -> Entrant:
    """Forward and backward as under --amp: dropout by torch's own function, by production's masks, or not at all.

    Drawing the random numbers counts, wherever that happens.
    """
    if lab.profile == "quick" and mode == "compiled":
        raise UserError("a quick look has no time to compile three times: --bench-profile full does")
    how = execution(lab, amp_precision(device_name(lab)), "channels-last", mode)
    mean, std = lab.manifest.mean, lab.manifest.std
    step, _ = _build(how.device, how.batch_size, mode, mean, std, 0.0 if dropout == "none" else Recipe.dropout)
    batch, numbers = noise(how.device, how.batch_size), count()
    images, _ = step.inputs(batch, augmented=False, epoch=0, number=0)

    def once() -> None:
        masks = None
        if dropout == "masks":
            masks = draw_masks(len(images), seed_of(0, "bench", next(numbers)), device=how.device.target)
        loss, _ = step.forward(images, batch.labels, masks)
        torch.autograd.backward(step.scaler.scale(loss))
        step.optimizer.zero_grad()

    return _entrant(once, how.facts, "train")


def _open(lab: Lab, precision: Precision, layout: Layout, mode: Mode) -> tuple[TrainStep, Batch, dict[str, Any]]:
    if lab.profile == "quick" and (layout, mode) == ("contiguous", "compiled"):
        raise UserError("a quick look has time to compile channels-last alone: --bench-profile full compiles both")
    how = execution(lab, precision, layout, mode)
    step, cost = _build(how.device, how.batch_size, mode, lab.manifest.mean, lab.manifest.std)
    facts = how.facts | {"compile_seconds": cost.seconds, "compile_cache": cost.cache}
    return step, noise(how.device, how.batch_size), facts


@cache  # the groups share what is compiled
def _build(
    device: Device,
    batch_size: int,
    mode: Mode,
    mean: Sequence[float],
    std: Sequence[float],
    dropout: float = Recipe.dropout,
) -> tuple[TrainStep, Compilation]:
    """The reference recipe's step, with as much dropout."""
    recipe = Recipe(batch_size=batch_size, dropout=dropout)
    model = device.place(build_model(recipe, seed=0))
    step = TrainStep(model, recipe, device, mean=mean, std=std, seed=0)
    if mode == "eager":
        return step, Compilation(seconds=None, cache=None)
    forget_compilations()
    seconds = step.compile(_refuse)
    return step, Compilation(seconds=seconds, cache=compile_cache())


def _refuse(reason: str) -> NoReturn:
    raise UserError(reason)


def _entrant(once: Callable[[], None], facts: dict[str, Any], part: str) -> Entrant:
    images = facts["batch_size"]
    flops = flops_per_image(Recipe())[part] * images
    return Entrant(once=once, work=images, warm_up=WARM_UP, facts=facts | {"flops": flops})
