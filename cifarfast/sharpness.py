"""Sharpness-aware minimisation: a step follows the gradient of a place uphill from where it starts.

P. Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization" (arXiv:2010.01412), of the
convolutions alone: what follows those is a BatchNorm, so the loss depends on their direction, and their norms are of a
kind, while the gradient of a head that learns slowly would be nearly all of the whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_LITTLE = 1e-12  # so that no gradient at all is no direction, and not NaN


@contextmanager
def uphill(network: nn.Module, radius: float) -> Iterator[None]:
    """Within, trained convolutions are moved along their gradients, all together by the Euclidean distance `radius`.

    Afterwards weights and buffers are as they were before, bit for bit; gradients are not touched. Only the directions
    of the gradients count, so they may be scaled. Nothing waits for the device.
    """
    ways = [(bank, bank.grad) for bank in network.parameters() if bank.ndim == 4 and bank.grad is not None]
    before = [(tensor, tensor.detach().clone()) for tensor in (*(bank for bank, _ in ways), *network.buffers())]
    with torch.no_grad():
        norm = torch.stack([gradient.norm() for _, gradient in ways]).norm()
        for bank, gradient in ways:
            bank.addcmul_(gradient, radius / (norm + _LITTLE))
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, kept in before:
                tensor.copy_(kept)
