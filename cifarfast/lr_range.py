"""Range tests of models: of any model and loader in plain torch, and of a recipe as training runs it."""

import copy
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from cifarfast.config import RunConfig
from cifarfast.device import Device
from cifarfast.door import note
from cifarfast.evaluation import evaluate
from cifarfast.loaders.base import Batch, Loader
from cifarfast.range_record import LrRangeRecord, check_no_range, write_range
from cifarfast.range_test import LrRange, Sweep, measure
from cifarfast.restoring import modes, restoring
from cifarfast.runfolder import RunFolder
from cifarfast.setup import Setup, set_up
from cifarfast.step import TrainStep
from cifarfast.stopping import StopSignals
from cifarfast.summary import Effective, RuntimeRecord

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def lr_range_test(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: Loss,
    batches: Batches,
    *,
    sweep: Sweep | None = None,
    validation: Batches | None = None,
    autocast: AbstractContextManager[object] | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> LrRange:
    """Range test of any classifier or regressor; afterwards everything is restored bit for bit (`restoring`).

        inputs = torch.randn(512, 10)
        loader = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=64, shuffle=True)
        model = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        optimizer = torch.optim.Adam(model.parameters())
        result = cifarfast.lr_range_test(model, optimizer, torch.nn.functional.mse_loss, loader)
        print(result.suggestions.steepest.lr)

    Args:
        model: maps inputs to outputs. In eval mode it is trained in train mode; otherwise each of its
            modules keeps the mode it has.
        optimizer: of the model's parameters; every parameter group gets the learning rate of the sweep.
        loss_function: of (outputs, targets), a tensor ().
        batches: pairs (inputs, targets), moved to the model's device; gone through again when they end.
            Only torch's global generators are restored, not one of the loader's own.
        sweep: the settings, by default `Sweep()`.
        validation: judge by the mean loss over these pairs, in eval mode after each step, in place of
            the loss of the training batch.
        autocast: the context in which model and loss are computed, for example `torch.autocast("cpu")`.
        scaler: loss scaling for fp16.

    Raises:
        ValueError: there are no batches (any more), or the validation has none.
    """
    device, context = next(model.parameters()).device, autocast or nullcontext()
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with context:
            return loss_function(model(inputs.to(device)), targets.to(device))

    with restoring(model, optimizer, scaler), closing(_again_and_again(batches)) as endless:
        if not model.training:
            model.train()

        def advance(lr: float) -> float:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            loss = loss_of(*next(endless))
            value = loss.item()
            if not math.isfinite(value):
                return value
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            return value if validation is None else _validate(model, loss_of, validation)

        return measure(advance, sweep or Sweep())


def sweep_step(
    step: TrainStep,
    loader: Loader,
    sweep: Sweep,
    device: Device,
    *,
    validation: Loader | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> LrRange:
    """Range test of a training step, with its loader, augmentation, precision and compiled code.

    The step is as it was afterwards. Momentum is that of the schedule's peak, for it is the peak's
    learning rate that is sought; so is all else that the recipe has there.

    Args:
        validation: judge by the mean loss over these images after each step.
        on_step: called as each step begins.
    """
    recipe = step.recipe
    momentum = recipe.base_momentum if recipe.cycle_momentum else recipe.max_momentum
    work = recipe.work(min(int(recipe.pct_start * recipe.epochs), recipe.epochs - 1))
    with _restoring_step(step), closing(_endless(loader)) as batches:

        def advance(lr: float) -> float:
            on_step()
            position, epoch, number, batch = next(batches)
            step.set(lr=lr, momentum=momentum)
            step(batch, augmented=loader.augments, epoch=epoch, number=number, position=position, work=work)
            loss = step.statistics.take().loss
            if step.guard.fatal_step() is not None:  # a gradient may be infinite where the loss is not
                return math.nan
            if validation is None:
                return loss
            with validation.epoch(0) as held_out:
                return evaluate(step.model, held_out, device, mean=step.mean, std=step.std).score.loss

        return measure(advance, sweep)


def recipe_range_test(config: RunConfig, sweep: Sweep, *, out: Path) -> LrRangeRecord:
    """Range test of a recipe; leaves lr_range.json and lr_range.png.

    Args:
        config: recipe, runtime and data; where `test_images` is given, the loss on so many test images
            after each step is judged, not that of the training batch.
        sweep: the learning rates.
        out: the folder to make; one that already holds a range test or a run is refused.

    Raises:
        UserError: the data, the folder, the device or a size is unusable; nothing was trained.
        Stopped: SIGINT or SIGTERM came; nothing is kept.
    """
    start = time.perf_counter()
    setup = set_up(config)
    with RunFolder(out):
        check_no_range(out)
        compiled = config.runtime.compile and setup.step.compile(note) is not None
        effective = setup.effective(compiled=compiled)
        validation = None if config.test_images is None else setup.test_loader
        record = range_of_setup(setup, effective, sweep, start=start, validation=validation)
        write_range(out, record)
    return record


def range_of_setup(
    setup: Setup, effective: Effective, sweep: Sweep, *, start: float, validation: Loader | None = None
) -> LrRangeRecord:
    """Range test of a run that has been set up, and compiled if it is to be; its step is as it was afterwards.

    Args:
        effective: what its runtime came to.
        start: when it began, as `time.perf_counter` tells it.
        validation: as in `sweep_step`.

    Raises:
        Stopped: SIGINT or SIGTERM came.
    """
    console = Console(stderr=True)
    with StopSignals() as stop, Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("range test", total=sweep.num_iter)

        def on_step() -> None:
            stop.heed()
            bar.advance(task)

        result = sweep_step(setup.step, setup.train_loader, sweep, setup.device, validation=validation, on_step=on_step)
    seconds = time.perf_counter() - start
    config, data = setup.config, setup.data()
    return LrRangeRecord(
        result=result,
        recipe=config.recipe,
        seed=config.seed,
        runtime=RuntimeRecord(asked=config.runtime, effective=effective),
        fingerprint=setup.fingerprint,
        data=replace(data, test_images=0 if validation is None else data.test_images),
        started=(datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        total_seconds=seconds,
    )


def _again_and_again(batches: Batches) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
    for epoch in count():
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            what = "are used up: pass a loader that can be gone through again" if epoch else "are empty"
            raise ValueError(f"the batches {what}")


def _endless(loader: Loader) -> Generator[tuple[int, int, int, Batch]]:
    """Step of the sweep, epoch, number within it, batch."""
    positions = count()
    for epoch in count():
        with loader.epoch(epoch) as batches:
            for number, batch in enumerate(batches):
                yield next(positions), epoch, number, batch


@torch.no_grad()
def _validate(model: torch.nn.Module, loss_of: Loss, batches: Batches) -> float:
    total, images = 0.0, 0
    with modes(model):
        model.eval()
        for inputs, targets in batches:
            total += loss_of(inputs, targets).item() * len(targets)
            images += len(targets)
    if not images:
        raise ValueError("the validation batches are empty")
    return total / images


@contextmanager
def _restoring_step(step: TrainStep) -> Iterator[None]:
    guard, statistics = copy.deepcopy(step.guard), copy.deepcopy(step.statistics)
    try:
        with restoring(step.model, step.optimizer, step.scaler):
            yield
    finally:
        step.guard, step.statistics = guard, statistics
        step.capture_anew()
