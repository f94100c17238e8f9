"""What the machine can do at best: matrix products, the network's own convolutions, copies."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import PRECISIONS, Precision, execution, noise
from cifarfast.model import build_model
from cifarfast.recipe import Recipe

SIDE, SMALL_SIDE = 2048, 512
"""Rows and columns of the matrices; the small ones where the precision is emulated."""
COPY_BYTES = 1 << 28


def _every_precision(of: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("precision", [pytest.param(name, id=f"{of}-{name}") for name in PRECISIONS])


@pytest.mark.contest(group="peaks", quick=10, full=10)
@_every_precision("product")
def bench_product(lab: Lab, precision: Precision) -> Entrant:
    how = execution(lab, precision)
    side = SMALL_SIDE if how.emulated else SIDE
    left, right, out = torch.rand(3, side, side, device=how.device.target).to(how.device.compute_dtype)

    def once() -> None:
        torch.mm(left, right, out=out)

    facts = {"precision": precision, "tf32": how.facts["tf32"], "side": side}
    return Entrant(once=once, work=2 * side**3, unit="FLOP", facts=facts)


@pytest.mark.contest(group="peaks", quick=5, full=7)
@_every_precision("convolutions")
def bench_convolutions(lab: Lab, precision: Precision) -> Entrant:
    """Each by itself on what it is given in training, forward and backward, and nothing in between."""
    how = execution(lab, precision)
    dtype = how.device.compute_dtype
    model = how.device.place(build_model(Recipe(dropout=0.0), seed=0)).to(dtype)
    given = _given_to_convolutions(model, noise(how.device, how.batch_size).images.to(dtype))
    passes = []
    for number, (module, images) in enumerate(given):
        # Of the first one's input, the images, nobody wants the gradient.
        wanted = [module.weight] if number == 0 else [module.weight, images.requires_grad_()]
        passes.append((images, module.weight, module.padding, wanted, torch.ones_like(module(images))))

    def once() -> None:
        for images, weight, padding, wanted, gradient in passes:
            torch.autograd.grad(F.conv2d(images, weight, padding=padding), wanted, gradient)

    with FlopCounterMode(display=False) as counter:
        once()
    return Entrant(once=once, work=counter.get_total_flops(), unit="FLOP", warm_up=2, facts=how.facts)


def _given_to_convolutions(model: nn.Module, images: torch.Tensor) -> list[tuple[nn.Conv2d, torch.Tensor]]:
    given: list[tuple[nn.Conv2d, torch.Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: given.append((module, inputs[0])))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return given


@pytest.mark.contest(group="peaks", quick=10, full=20)
def bench_copy(lab: Lab) -> Entrant:
    """Of 256 MiB on the device; what is read and what is written count."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=lab.device.target)
    target = torch.ones_like(source)

    def once() -> None:
        target.copy_(source)

    return Entrant(once=once, work=2 * COPY_BYTES, unit="bytes")
