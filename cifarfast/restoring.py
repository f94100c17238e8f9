"""Training that leaves no trace: everything a trial changes is put back, bit for bit."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def restoring(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> Iterator[None]:
    """Train as you like inside; on leaving, also by an exception or Ctrl-C, all is as it was before.

    All: parameters, their gradients and buffers (the same tensor objects with their old bits), the train
    or eval mode of every module, the optimizer's state and parameter groups, the loss scaler, and the
    random states of Python, numpy and torch (CPU, every CUDA device, MPS).
    """
    with random_state(), modes(model), _tensors(model), _optimizer(optimizer), _scaler(scaler):
        yield


@contextmanager
def modes(model: torch.nn.Module) -> Iterator[None]:
    """Restore which modules are in train mode and which in eval mode."""
    training = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def random_state() -> Iterator[None]:
    """Restore the global random generators of Python, numpy and torch."""
    python, legacy_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # what the user's loader may use
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy_numpy)  # noqa: NPY002
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def _tensors(model: torch.nn.Module) -> Iterator[None]:
    # Module by module, not from state_dict, which leaves out the buffers that are not persistent.
    saved = [
        (module, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, tensor in named
    ]
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, tensor, bits in saved:
                setattr(module, name, tensor.copy_(bits))  # a module may have put another tensor in its place
            for parameter, gradient, bits_or_none in gradients:
                parameter.grad = gradient
                if gradient is not None and bits_or_none is not None:
                    gradient.copy_(bits_or_none)


@contextmanager
def _optimizer(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    # Not by load_state_dict, which casts the state to the parameters' dtype.
    state = {parameter: copy.deepcopy(value) for parameter, value in optimizer.state.items()}
    groups = [{k: copy.deepcopy(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        yield
    finally:
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.update(saved)


@contextmanager
def _scaler(scaler: torch.amp.GradScaler | None) -> Iterator[None]:
    # Not by state_dict, which leaves out how far a step had got when it was interrupted.
    saved = {} if scaler is None else copy.deepcopy(vars(scaler))
    try:
        yield
    finally:
        if scaler is not None:
            vars(scaler).update(saved)
