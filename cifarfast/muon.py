"""Muon: momentum whose every step is made orthogonal before it is taken.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). `torch.optim.Muon` takes matrices
only, multiplies in bf16, which without bf16 instructions is fourteen times slower than fp32 on a CPU, and cannot be
told on the device to leave everything untouched.
"""

from collections.abc import Iterable
from typing import Any

import torch

ITERATIONS = 3
"""Of Newton-Schulz: enough for filters, says airbench, and half of what language models use."""
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Nesterov momentum; in groups with `orthogonal`, matrices of fixed norm moved by orthogonal steps.

    Such a filter bank (C_out, ...), taken as a matrix of C_out rows, is scaled to the Frobenius norm sqrt(C_out) before
    each step: what follows it is a BatchNorm, to which only its direction matters, and so the learning rate says by how
    much that turns. The matrix of a gate, which no BatchNorm follows, thereby keeps the norm it is given.

    Args:
        groups: dicts with `params`, `lr`, `orthogonal`, and optionally `weight_decay`.
        momentum: share of the old direction that is kept.
        dtype: in which matrices are multiplied.
    """

    found_inf: torch.Tensor | None = None
    """() on the device, as fused optimizers read it: where it is not zero, `step` leaves everything as it is."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, dtype: torch.dtype) -> None:
        super().__init__(groups, {"momentum": momentum, "weight_decay": 0.0})
        self._dtype = dtype

    def step(self) -> None:  # type: ignore[override]  # no closure
        """Move every parameter that has a gradient."""
        self.move(self.rates())

    def rates(self) -> torch.Tensor:
        """(groups, 3), where the parameters are: learning rate, momentum, and the share that decay leaves."""
        rates = [
            (group["lr"], group["momentum"], 1.0 - group["lr"] * group["weight_decay"]) for group in self.param_groups
        ]
        first = self.param_groups[0]["params"][0]
        return torch.tensor(rates, dtype=first.dtype).to(first.device, non_blocking=True)

    @torch.no_grad()
    def move(self, rates: torch.Tensor) -> None:
        """`step` at these rates, which the host need not know: with the same tensors it can be captured as a graph."""
        for group, (lr, momentum, left) in zip(self.param_groups, rates, strict=True):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, lr, momentum, left=None if group["orthogonal"] else left)

    def _move(self, parameter: torch.Tensor, lr: torch.Tensor, share: torch.Tensor, left: torch.Tensor | None) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        kept = state["momentum_buffer"]
        momentum = torch.addcmul(gradient, kept, share)
        direction = torch.addcmul(gradient, momentum, share)
        if left is None:
            start = parameter * (len(parameter) ** 0.5 / parameter.norm())
            direction = orthogonalised(direction, self._dtype)
        else:
            start = parameter * left
        moved = start.addcmul_(direction, lr, value=-1)
        for tensor, new in ((kept, momentum), (parameter, moved)):
            # Not `new` times zero: that is NaN where a gradient is.
            if self.found_inf is None:
                tensor.copy_(new)
            else:
                torch.where(self.found_inf > 0, tensor, new, out=tensor)


def orthogonalised(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Nearly the nearest (semi-)orthogonal matrix: singular values of about one, the singular vectors kept.

    Each iteration multiplies the matrix from the left by a polynomial of its own square. These are put together first,
    of matrices as small as the square, and the wide matrix is met but twice: half the time for filters of nine times as
    many columns as rows.

    Args:
        tensor: (R, ...), taken as a matrix of R rows.
        dtype: in which it is multiplied.

    Returns:
        Of the shape and dtype of `tensor`. Large singular values come out between 0.7 and 1.2, small ones smaller.
    """
    # In the order in which filters lie in channels-last memory; an order of columns changes nothing.
    ordered = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
    rows = ordered.flatten(1)
    x = rows.T if len(rows) > rows.shape[1] else rows
    x = (x / (x.norm() + 1e-7)).to(dtype)
    square = x @ x.T
    factors = one = torch.eye(len(x), dtype=dtype, device=x.device)
    for _ in range(ITERATIONS):
        factor = _A * one + _B * square + _C * square @ square
        square = factor @ square @ factor
        factors = factor @ factors
    x = factors @ x
    x = x.T if len(rows) > rows.shape[1] else x
    orthogonal: torch.Tensor = x.to(tensor.dtype).reshape(ordered.shape)
    return orthogonal.permute(0, 3, 1, 2) if tensor.ndim == 4 else orthogonal
