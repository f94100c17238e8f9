"""Muon: momentum whose every step is made orthogonal before it is taken.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). `torch.optim.Muon` takes matrices
only, multiplies in bf16, which without bf16 instructions is fourteen times slower than fp32 on a CPU, and cannot be
told on the device to leave everything untouched.
"""

from collections.abc import Iterable, Sequence
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
        for group, (lr, share, left) in zip(self.param_groups, rates, strict=True):
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            momenta, directions = [], []
            for parameter in parameters:
                momenta.append(torch.addcmul(parameter.grad, self._kept(parameter), share))
                directions.append(torch.addcmul(parameter.grad, momenta[-1], share))
            if group["orthogonal"]:
                starts = [parameter * (len(parameter) ** 0.5 / parameter.norm()) for parameter in parameters]
                directions = orthogonalised(directions, self._dtype)
            else:
                starts = [parameter * left for parameter in parameters]
            for parameter, momentum, start, direction in zip(parameters, momenta, starts, directions, strict=True):
                self._set(self._kept(parameter), momentum)
                self._set(parameter, start.addcmul_(direction, lr, value=-1))

    def _kept(self, parameter: torch.Tensor) -> torch.Tensor:
        """The momentum of the last step, at first nothing."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        kept: torch.Tensor = state["momentum_buffer"]
        return kept

    def _set(self, tensor: torch.Tensor, new: torch.Tensor) -> None:
        # Not `new` times zero: that is NaN where a gradient is.
        if self.found_inf is None:
            tensor.copy_(new)
        else:
            torch.where(self.found_inf > 0, tensor, new, out=tensor)


def orthogonalised(tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Nearly the nearest (semi-)orthogonal matrices: singular values of about one, the singular vectors kept.

    Each iteration multiplies a matrix from the left by a polynomial of its own square. These are put together first, of
    matrices as small as the square, all of one size at once, and the wide matrix is met but twice: half the time for
    filters of nine times as many columns as rows.

    Args:
        tensors: (R, ...), each taken as a matrix of R rows.
        dtype: in which they are multiplied.

    Returns:
        Of the shapes and dtypes of `tensors`. Large singular values come out between 0.7 and 1.2, small ones smaller.
    """
    wide = [_wide(tensor).to(dtype) for tensor in tensors]
    found = list(tensors)
    for size in dict.fromkeys(map(len, wide)):
        members = [number for number, matrix in enumerate(wide) if len(matrix) == size]
        polynomials = _polynomials(torch.stack([wide[number] @ wide[number].T for number in members]))
        for number, polynomial in zip(members, polynomials, strict=True):
            found[number] = _narrow(polynomial @ wide[number], tensors[number])
    return found


def _polynomials(squares: torch.Tensor) -> torch.Tensor:
    """What all iterations multiply matrices by whose squares are (N, R, R)."""
    factors = one = torch.eye(squares.shape[-1], dtype=squares.dtype, device=squares.device)
    for _ in range(ITERATIONS):
        factor = _A * one + _B * squares + _C * squares @ squares
        squares = factor @ squares @ factor
        factors = factor @ factors
    return factors


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """As a matrix of norm one, and of no more rows than columns."""
    # In the order in which filters lie in channels-last memory; an order of columns changes nothing.
    rows = (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).flatten(1)
    matrix = rows.T if len(rows) > rows.shape[1] else rows
    normalised: torch.Tensor = matrix / (matrix.norm() + 1e-7)
    return normalised


def _narrow(matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of `_wide`, but for the norm."""
    rows = (matrix.T if len(like) > like[0].numel() else matrix).to(like.dtype)
    if like.ndim == 4:
        filters, channels, height, width = like.shape
        rows = rows.reshape(filters, height, width, channels).permute(0, 3, 1, 2)
    found: torch.Tensor = rows.reshape(like.shape)
    return found
