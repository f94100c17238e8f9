"""OneCycle, by hand: a frozen value and a pure function of the step.

L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
Rates" (arXiv:1708.07120), in the two-phase form of `torch.optim.lr_scheduler.OneCycleLR`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cifarfast.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """From `max_lr / div_factor` up to `max_lr` at `peak_epoch`, down to the final rate at the last step.

    Momentum (Adam's beta1) runs the other way, between `max_momentum` and `base_momentum`.
    """

    epochs: int
    """Length of the run in epochs."""
    steps_per_epoch: int
    """Optimizer steps an epoch."""
    peak_epoch: float
    """Where the peak is, in epochs from the start; may be fractional."""
    max_lr: float
    """Learning rate at the peak."""
    div_factor: float
    """First learning rate: max_lr / div_factor."""
    final_div_factor: float
    """Last learning rate: max_lr / div_factor / final_div_factor."""
    anneal: Literal["cosine", "linear"] = "cosine"
    """Shape of both phases."""
    base_momentum: float = 0.85
    """Momentum at the peak."""
    max_momentum: float = 0.95
    """Momentum at both ends."""

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def lr(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        first = self.max_lr / self.div_factor
        return self._cycle(step, first, self.max_lr, first / self.final_div_factor)

    def momentum(self, step: int) -> float:
        """Momentum of step `step`, counted from 0."""
        return self._cycle(step, self.max_momentum, self.base_momentum, self.max_momentum)

    def _cycle(self, step: int, first: float, peak: float, last: float) -> float:
        if not 0 <= step < self.steps:
            raise ValueError(f"step must be between 0 and {self.steps - 1}, not {step}")
        # The last step of the rising phase is the peak, hence the -1, as in OneCycleLR.
        peak_step, last_step = self.peak_epoch * self.steps_per_epoch - 1, self.steps - 1
        if step <= peak_step < last_step or peak_step >= last_step:
            return self._between(first, peak, step / peak_step if peak_step > 0 else 1.0)
        return self._between(peak, last, (step - peak_step) / (last_step - peak_step))

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal == "linear":
            return start + (end - start) * fraction
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


def one_cycle(recipe: Recipe, steps_per_epoch: int) -> OneCycle:
    """The schedule that a recipe asks for."""
    return OneCycle(
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        peak_epoch=recipe.pct_start * recipe.epochs,
        max_lr=recipe.max_lr,
        div_factor=recipe.div_factor,
        final_div_factor=recipe.final_div_factor,
        anneal=recipe.anneal,
        base_momentum=recipe.base_momentum if recipe.cycle_momentum else recipe.max_momentum,
        max_momentum=recipe.max_momentum,
    )
