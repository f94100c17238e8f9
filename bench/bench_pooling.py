"""Convolution and 2x2 max-pooling of the speedruns' network: by torch, and in one by Winograd's algorithm."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import execution
from cifarfast.errors import UserError
from cifarfast.networks import bfloat16, winograd
from cifarfast.networks.pooling import max_pool
from cifarfast.recipe import SPEEDRUN_94


def _by_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return max_pool(F.conv2d(x, weight.to(x.dtype)))


WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "torch": _by_torch,
    "winograd": winograd.conv_max_pool,
}


@pytest.mark.contest(group="pooling", quick=4, full=10, baseline="torch")
@pytest.mark.parametrize("way", WAYS)
def bench_pooling(lab: Lab, way: str) -> Entrant:
    """Forward and backward, of whole images, what the second and the third stage of `speedrun-94` do first."""
    how, width = execution(lab, "bf16"), SPEEDRUN_94.width
    if not bfloat16.runs_on(how.device.target, torch.bfloat16):
        raise UserError(f"Winograd's algorithm is for bf16 on a CPU, and this is measured on {how.device.target.type}")
    passes = []
    for channels, side in ((width, 16), (4 * width, 8)):
        x = torch.randn(how.batch_size, channels, side, side, device=how.device.target, dtype=torch.bfloat16)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = how.device.place(torch.nn.Conv2d(channels, 4 * width, 3)).weight
        passes.append((x, weight, torch.ones_like(_by_torch(x, weight))))

    def once() -> None:
        for x, weight, gradient in passes:
            torch.autograd.grad(WAYS[way](x, weight), [x, weight], gradient)

    return Entrant(once=once, work=how.batch_size, facts=how.facts)
