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
def uphill(network: nn.Module, loss: torch.Tensor, radius: float) -> Iterator[None]:
    """Within, trained convolutions are moved along the gradients of `loss` (), together by the distance `radius`.

    Afterwards weights and buffers are as they were before, bit for bit; `grad` of no parameter is touched. Only the
    direction counts, so the loss may be scaled. Its graph is gone. Nothing waits for the device.
    """
    banks = [parameter for parameter in network.parameters() if parameter.ndim == 4 and parameter.requires_grad]
    gradients = torch.autograd.grad(loss, banks)
    before = [(tensor, tensor.detach().clone()) for tensor in (*banks, *network.buffers())]
    with torch.no_grad():
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for bank, gradient in zip(banks, gradients, strict=True):
            bank.addcmul_(gradient, radius / (norm + _LITTLE))
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, kept in before:
                tensor.copy_(kept)
