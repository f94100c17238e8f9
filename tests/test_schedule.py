import math

import pytest
import torch

from cifarfast.recipe import RECIPES, Recipe
from cifarfast.schedule import OneCycle, one_cycle


def one(**changes: object) -> OneCycle:
    reference = {"epochs": 20, "steps_per_epoch": 98, "peak_epoch": 5.0}
    settings = reference | {"max_lr": 0.017, "div_factor": 10.0, "final_div_factor": 1.0}
    return OneCycle(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "pct_start", "div_factor", "final_div_factor"),
    [
        (20, 98, 0.25, 10.0, 1.0),
        (20, 97, 0.25, 10.0, 1e4),
        (3, 7, 0.3, 25.0, 1e4),
        (1, 12, 0.5, 4.0, 2.0),
        (2, 1, 1.0, 10.0, 1.0),
    ],
)
def test_equals_torch(
    anneal: str, epochs: int, steps_per_epoch: int, pct_start: float, div_factor: float, final_div_factor: float
) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.017,
        total_steps=epochs * steps_per_epoch,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal_strategy={"cosine": "cos", "linear": "linear"}[anneal],  # type: ignore[arg-type]
    )
    schedule = one(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        peak_epoch=pct_start * epochs,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal=anneal,
    )
    for step in range(schedule.steps):
        group = optimizer.param_groups[0]
        assert schedule.lr(step) == pytest.approx(group["lr"], abs=1e-12)
        assert schedule.momentum(step) == pytest.approx(group["betas"][0], abs=1e-12)
        optimizer.step()
        if step + 1 < schedule.steps:
            reference.step()


def test_the_reference_points() -> None:
    schedule = one_cycle(RECIPES["reference"], 98)
    assert schedule.lr(0) == pytest.approx(0.0017, abs=1e-15)
    assert schedule.lr(5 * 98 - 1) == pytest.approx(0.017, abs=1e-15)
    assert schedule.lr(20 * 98 - 1) == pytest.approx(0.0017, abs=1e-15)
    assert max(schedule.lr(step) for step in range(schedule.steps)) == pytest.approx(0.017, abs=1e-15)


def test_a_fractional_peak_epoch() -> None:
    schedule = one(epochs=2, steps_per_epoch=100, peak_epoch=0.5, anneal="linear")
    assert schedule.lr(49) == pytest.approx(0.017)
    assert schedule.lr(48) < 0.017 > schedule.lr(50)


@pytest.mark.parametrize("peak_epoch", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps_per_epoch", [1, 2, 4])
def test_tiny_runs_stay_in_range_and_end_finite(peak_epoch: float, steps_per_epoch: int) -> None:
    schedule = one(epochs=1, steps_per_epoch=steps_per_epoch, peak_epoch=peak_epoch)
    for step in range(schedule.steps):
        assert math.isfinite(schedule.lr(step))
        assert 0.0017 - 1e-12 <= schedule.lr(step) <= 0.017 + 1e-12


def test_momentum_stands_still_when_not_cycled() -> None:
    schedule = one_cycle(Recipe(cycle_momentum=False, max_momentum=0.9), 10)
    assert {schedule.momentum(step) for step in range(schedule.steps)} == {0.9}


def test_the_schedule_stretches_with_the_run() -> None:
    short, long = one_cycle(Recipe(epochs=2), 10), one_cycle(Recipe(epochs=20), 10)
    assert short.lr(4) == pytest.approx(long.lr(49)) == pytest.approx(0.017)


@pytest.mark.parametrize("step", [-1, 1960])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="step must be between 0 and 1959"):
        one().lr(step)
