import math

import pytest
import torch

from cifarfast.guard import LARGEST, FiniteGuard

CPU = torch.device("cpu")
NAN, INF = math.nan, math.inf


def guard(*, allowed_in_a_row: int = 0) -> FiniteGuard:
    return FiniteGuard(CPU, {"gradient": ["a", "b"], "weight": ["c"]}, allowed_in_a_row=allowed_in_a_row)


def judge(guard: FiniteGuard, *losses: float) -> list[float]:
    values = [torch.ones(3)] * 3
    return [guard.judge(torch.tensor(loss), values, step).item() for step, loss in enumerate(losses)]


def test_it_refuses_everything_after_a_fatal_step() -> None:
    strict = guard()
    assert judge(strict, 1.0, NAN, 1.0, INF) == [0, 1, 1, 1]
    assert strict.fatal_step() == 1


def test_it_forgives_streaks_up_to_its_limit() -> None:
    lenient = guard(allowed_in_a_row=2)
    assert judge(lenient, 1.0, INF, INF, 1.0, INF, INF) == [0, 1, 1, 0, 1, 1]
    assert lenient.fatal_step() is None
    assert lenient.skipped_steps() == 4
    lenient = guard(allowed_in_a_row=2)
    judge(lenient, 1.0, INF, INF, INF, 1.0)
    assert lenient.fatal_step() == 3


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -2 * LARGEST])
@pytest.mark.parametrize("where", range(3))
def test_it_sees_one_bad_value_behind_a_good_loss(bad: float, where: int) -> None:
    values = [torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last) for _ in range(3)]
    values[where][1, 2, 3, 0] = bad
    assert guard().judge(torch.tensor(1.0), values, 0).item() == 1


def test_it_permits_finite_values_whose_norm_overflows() -> None:
    values = [torch.full((1000,), 0.9 * LARGEST)] * 3
    assert math.isinf(values[0].square().sum())
    assert guard().judge(torch.tensor(1.0), values, 0).item() == 0


def test_the_diagnosis_is_that_of_the_fatal_step() -> None:
    strict = guard()
    strict.judge(torch.tensor(2.5), [torch.tensor([-3.0]), torch.tensor([INF, NAN]), torch.tensor([0.25, 0.5])], 7)
    judge(strict, 1.0, NAN)
    assert strict.fatal_step() == 7
    assert strict.diagnosis() == "loss 2.5, largest gradient nan in b, largest weight 0.5 in c"
    strict = guard()
    strict.judge(torch.tensor(NAN), [torch.tensor([-3.0]), torch.tensor([2.0]), torch.tensor([0.5])], 0)
    assert strict.diagnosis() == "loss nan, largest gradient 3 in a, largest weight 0.5 in c"


def test_the_state_can_be_copied_into_another() -> None:
    first, second = guard(allowed_in_a_row=2), guard(allowed_in_a_row=2)
    live = second.tensors()
    judge(first, NAN, NAN)
    for name, tensor in first.tensors().items():
        live[name].copy_(tensor)
    assert judge(second, 1.0, NAN) == [0, 1]  # the same tensors still
    assert second.skipped_steps() == 3
    for name, tensor in first.tensors().items():
        live[name].copy_(tensor)
    judge(second, NAN)
    assert second.fatal_step() == 0


def test_what_it_remembers_has_no_history() -> None:
    """The weights among the values require gradients: a graph over them would keep every step's tensors alive."""
    strict = guard()
    strict.judge(torch.tensor(1.0, requires_grad=True), [torch.ones(3, requires_grad=True)] * 3, 0)
    assert not any(tensor.requires_grad for tensor in strict.tensors().values())
