import random
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cifarfast.restoring import modes, restoring


class Counting(nn.Module):
    """Has a buffer that is not in state_dict and is replaced, not changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x


def network() -> nn.Module:
    torch.manual_seed(3)
    frozen = nn.BatchNorm1d(8).eval()
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), frozen, Counting(), nn.Dropout(0.5), nn.Linear(8, 3))
    model[2].training = False
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 4) * random.random() + float(np.random.rand())  # noqa: NPY002
        scaler.scale(model(inputs).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()


def bits(value: Any) -> Any:
    """A comparable copy of nested state, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.detach().contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value


def everything(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> dict[str, Any]:
    return {
        "parameters": bits(dict(model.named_parameters())),
        "buffers": bits(dict(model.named_buffers())),
        "gradients": bits([p.grad for p in model.parameters()]),
        "modes": [module.training for module in model.modules()],
        "optimizer": bits(optimizer.state_dict()),
        "scaler": bits(scaler.state_dict()),
        "random": (bits(torch.get_rng_state()), random.getstate(), bits(np.random.get_state())),  # noqa: NPY002
        "identity": [id(tensor) for tensor in [*model.parameters(), *model.buffers()]],
    }


def trial(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, error: type[BaseException] | None
) -> None:
    """Changes everything, checks that it did, and ends normally or with the error."""
    before = everything(model, optimizer, scaler)
    with restoring(model, optimizer, scaler):
        optimizer.param_groups[0]["lr"] = 0.05
        train(model, optimizer, scaler, 4)
        model.eval()
        changed = everything(model, optimizer, scaler)
        assert [part for part in before if before[part] == changed[part]] == []
        if error is not None:
            raise error


@pytest.mark.parametrize("trained_before", [0, 3])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("optimizer_kind", [torch.optim.Adam, torch.optim.SGD])
def test_everything_is_restored_bit_for_bit(
    optimizer_kind: type[torch.optim.Optimizer], error: type[BaseException] | None, trained_before: int
) -> None:
    model = network()
    optimizer = optimizer_kind(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    train(model, optimizer, scaler, trained_before)
    before = everything(model, optimizer, scaler)
    with nullcontext() if error is None else pytest.raises(error):
        trial(model, optimizer, scaler, error)
    assert everything(model, optimizer, scaler) == before


def test_training_goes_on_as_if_nothing_had_been() -> None:
    def run(trial: bool) -> list[Any]:
        model = network()
        optimizer, scaler = torch.optim.Adam(model.parameters(), fused=True), torch.amp.GradScaler("cpu", enabled=False)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        train(model, optimizer, scaler, 2)
        if trial:
            with restoring(model, optimizer, scaler):
                train(model, optimizer, scaler, 5)
        train(model, optimizer, scaler, 2)
        return [bits(p) for p in model.parameters()]

    assert run(trial=True) == run(trial=False)


def test_a_scaler_interrupted_between_step_and_update_can_step_again() -> None:
    model = network()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")

    def interrupted() -> None:
        with restoring(model, optimizer, scaler):
            scaler.scale(model(torch.ones(4, 4)).mean()).backward()
            scaler.step(optimizer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    train(model, optimizer, scaler, 1)


def test_state_in_another_precision_than_the_weights_keeps_it() -> None:
    weight = nn.Linear(2, 2).bfloat16()
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1, momentum=0.9)
    state = torch.full((2, 2), 1 / 3)
    optimizer.state[weight.weight]["momentum_buffer"] = state
    with restoring(weight, optimizer):
        optimizer.state.clear()
    assert torch.equal(optimizer.state[weight.weight]["momentum_buffer"], torch.full((2, 2), 1 / 3))


def test_modes() -> None:
    model = network()
    with modes(model):
        model.eval()
    assert [module.training for module in model] == [True, True, False, True, True, True]  # type: ignore[attr-defined]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_random_state_of_a_gpu_is_restored() -> None:
    model = nn.Linear(2, 2).cuda()
    before = torch.cuda.get_rng_state()
    with restoring(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
