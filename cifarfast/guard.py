"""Judges every step on the device, so that NaN and infinity never reach what a run carries on."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch

# Beyond this a step counts as diverged: Adam squares the gradient with the penalty added, and squares of twice
# this are still far from the end of fp32 and bf16 (3.4e38). So what a permitted step writes is always finite.
LARGEST = 1e18


class FiniteGuard:
    """Finds the steps that must not count, without waiting for the device.

    A step is bad when the loss or any watched value is NaN or beyond `LARGEST`. In fp32 and bf16 the first
    bad step is fatal; in fp16, where the loss scaler expects some, a long streak is. After a fatal step
    every step is refused, however late the host looks.

    Args:
        device: where the steps run.
        watched: what is judged: names of tensors by kind, for example {"gradient": ["head.weight"]}.
        allowed_in_a_row: how many bad steps may follow each other before the next one is fatal.
    """

    def __init__(self, device: torch.device, watched: Mapping[str, Sequence[str]], *, allowed_in_a_row: int) -> None:
        self._watched, self._allowed = watched, allowed_in_a_row
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._fatal_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._fatal_values = torch.zeros(1 + sum(map(len, watched.values())), device=device)

    @torch.no_grad()  # the weights are among the values, and their graph would grow with every step
    def judge(self, loss: torch.Tensor, values: list[torch.Tensor], step: int | torch.Tensor) -> torch.Tensor:
        """1.0 where this step must change nothing, else 0.0: a float tensor () on the device.

        Args:
            loss: mean loss ().
            values: the watched tensors, floating point, in the order of their names.
            step: its number in the run, or int64 () on the device.
        """
        largest = torch.stack([loss.detach().abs(), *_magnitudes(values)])
        bad = ~(largest <= LARGEST).all()
        self._streak.copy_(torch.where(bad, self._streak + 1, 0))
        self._skipped += bad
        fatal = (self._streak > self._allowed) & (self._fatal_step < 0)
        self._fatal_step.copy_(torch.where(fatal, step, self._fatal_step))
        self._fatal_values.copy_(torch.where(fatal, largest, self._fatal_values))
        return (bad | (self._fatal_step >= 0)).float()

    def fatal_step(self) -> int | None:
        """The step at which training stopped making sense, None while it does (waits for the device)."""
        step = int(self._fatal_step.item())
        return step if step >= 0 else None

    def diagnosis(self) -> str:
        """The loss and the largest value of each kind at the fatal step, with its name; NaN is the largest."""
        loss, *values = self._fatal_values.tolist()
        rest = iter(values)
        worst = []
        for kind, names in self._watched.items():
            value, name = max(zip(islice(rest, len(names)), names, strict=True), key=_nan_is_largest)
            worst.append(f"largest {kind} {value:.3g} in {name}")
        return ", ".join([f"loss {loss:.3g}", *worst])

    def skipped_steps(self) -> int:
        """Steps that changed nothing (waits for the device)."""
        return int(self._skipped.item())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live state, always the same tensors: copy into them to restore it."""
        return {
            "streak": self._streak,
            "skipped": self._skipped,
            "fatal_step": self._fatal_step,
            "fatal_values": self._fatal_values,
        }


def _magnitudes(values: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The largest magnitude in each, NaN where there is one."""
    if values and values[0].device.type != "cpu":
        return torch._foreach_norm(values, math.inf)  # one kernel for the whole list on CUDA
    return [torch.maximum(value.amax(), -value.amin()) for value in values]  # a seventh of the time of a norm on a CPU


def _nan_is_largest(named: tuple[float, str]) -> tuple[bool, float]:
    value, _ = named
    return math.isnan(value), value
