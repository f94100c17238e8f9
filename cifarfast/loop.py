"""The training loop: `run_epochs` is all of it; `fit` builds what it needs and keeps what comes out."""

import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from cifarfast.config import RunConfig, saved_config
from cifarfast.dataset.manifest import Manifest, check_folder
from cifarfast.device import Device, compile_cache, open_device
from cifarfast.display import Display
from cifarfast.door import note
from cifarfast.errors import NonFiniteError, UserError
from cifarfast.fingerprint import take_fingerprint
from cifarfast.loaders import open_loader
from cifarfast.loaders.base import Feed, Loader
from cifarfast.metrics import EpochRow
from cifarfast.model import build_model, flops_per_image
from cifarfast.recipe import Recipe
from cifarfast.runfolder import RunFolder
from cifarfast.runtime import Runtime
from cifarfast.schedule import OneCycle, one_cycle
from cifarfast.step import TrainStep, evaluate
from cifarfast.stopwatch import Stopwatch
from cifarfast.summary import Compile, Effective, RuntimeRecord, Summary, data_of, of_rows


def run_epochs(
    step: TrainStep, train_loader: Loader, test_loader: Loader, schedule: OneCycle, device: Device, folder: RunFolder
) -> list[EpochRow]:
    """Train and evaluate for every epoch of the schedule; each row is on disk before the next epoch starts.

    Raises:
        NonFiniteError: the loss or a gradient became NaN or infinite.
    """
    rows: list[EpochRow] = []
    watch = Stopwatch(device.synchronize)
    with Display(epochs=schedule.epochs, steps=schedule.steps) as display:
        for epoch in range(schedule.epochs):
            with watch.span("train"), train_loader.epoch(epoch) as batches:
                for number, batch in enumerate(watch.waiting("data", batches)):
                    position = epoch * schedule.steps_per_epoch + number
                    step.set(lr=schedule.lr(position), momentum=schedule.momentum(position))
                    step(batch, augmented=train_loader.augments, epoch=epoch, number=number, position=position)
                    display.advance(epoch)
                    if device.reads_are_free or number + 1 == schedule.steps_per_epoch:
                        _stop_if_diverged(step.guard.fatal_step(), schedule)
                trained = step.statistics.take()
            with watch.span("eval"), test_loader.epoch(0) as batches:
                tested = evaluate(step.model, batches, device, mean=step.mean, std=step.std)
            epoch_seconds = watch.take("train")
            row = EpochRow(
                epoch=epoch + 1,
                steps=position + 1,
                train_loss=trained.loss,
                train_accuracy=trained.accuracy,
                test_loss=tested.loss,
                test_accuracy=tested.accuracy,
                lr=schedule.lr(position),
                epoch_seconds=epoch_seconds,
                eval_seconds=watch.take("eval"),
                images_per_second=trained.images / epoch_seconds,
                data_wait_percent=100 * watch.take("data") / epoch_seconds,
                peak_memory_bytes=device.peak_memory_bytes(),
            )
            folder.append(row)
            rows.append(row)
            display.epoch(row)
    return rows


def fit(
    recipe: Recipe,
    runtime: Runtime,
    *,
    data: Path,
    out: Path,
    seed: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
    verify: bool = True,
) -> Summary:
    """Train one network from scratch and leave a run folder.

    Args:
        data: a converted folder (`python -m data_prep.to_ffcv`).
        out: the run folder to make; one that already holds a run is refused.
        seed: origin of the initialisation, the order, the augmentation and the dropout.
        train_images: use only so many training images, evenly spaced through the split.
        test_images: likewise for evaluation.
        verify: hold the data against its SHA-256 digests first, not only against its sizes.

    Raises:
        UserError: the data, the folder, the device or a size is unusable; nothing was trained.
        NonFiniteError: training diverged; the run folder keeps the epochs before.
    """
    start, started = time.perf_counter(), datetime.now(timezone.utc)
    manifest = check_folder(data, full=verify)
    train_feed = feed_of(data, manifest, "train", recipe, train_images, seed)
    test_feed = feed_of(data, manifest, "test", recipe, test_images, seed)
    device = open_device(runtime, note)
    fingerprint = take_fingerprint(device)
    train_loader = loader_of(train_feed, recipe, runtime, device, manifest)
    test_loader = loader_of(test_feed, recipe, runtime, device, manifest)
    model = device.place(build_model(dropout=recipe.dropout, seed=seed))
    step = TrainStep(model, recipe, device, mean=manifest.mean, std=manifest.std, seed=seed)

    with RunFolder(out) as folder:
        config = RunConfig(
            recipe=recipe,
            runtime=runtime,
            data=data,
            seed=seed,
            train_images=train_images,
            test_images=test_images,
            verify=verify,
        )
        folder.write_config(saved_config(config, manifest))
        compile_seconds = step.compile(note) if runtime.compile else None
        schedule = one_cycle(recipe, train_feed.batches())
        rows = run_epochs(step, train_loader, test_loader, schedule, device, folder)
        folder.write_model(model)
        used = data_of(manifest, train_images=train_feed.count, test_images=test_feed.count, verified=verify)
        summary = Summary(
            recipe=recipe,
            seed=seed,
            runtime=runtime_of(runtime, device, train_loader, compiled=compile_seconds is not None),
            fingerprint=fingerprint,
            data=used,
            started=started.isoformat(timespec="seconds"),
            total_seconds=time.perf_counter() - start,
            model_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            flops_per_image=flops_per_image(),
            compile_seconds=None
            if compile_seconds is None
            else Compile(seconds=compile_seconds, cache=compile_cache()),
            skipped_steps=step.guard.skipped_steps(),
            **of_rows(recipe, used, rows),
        )
        folder.write_summary(summary)
    return summary


def feed_of(folder: Path, manifest: Manifest, name: str, recipe: Recipe, limit: int | None, seed: int) -> Feed:
    """The images of a split that a run uses, in batches of the recipe's size; shuffled for `train`.

    Raises:
        UserError: the limit or the batch size does not fit the split.
    """
    split = manifest.split(name)
    if limit is not None and not 0 < limit <= split.images:
        raise UserError(f"--{name}-images must be between 1 and {split.images} for {folder}, not {limit}")
    count = limit or split.images
    if name == "train" and recipe.batch_size > count:
        raise UserError(f"--batch-size {recipe.batch_size} is more than the {count} training images: lower it")
    return Feed(
        path=folder / split.file,
        images=split.images,
        limit=limit,
        batch_size=recipe.batch_size,
        seed=seed,
        train=name == "train",
    )


def loader_of(feed: Feed, recipe: Recipe, runtime: Runtime, device: Device, manifest: Manifest) -> Loader:
    """The loader that a runtime asks for; where it augments, as the recipe says."""
    return open_loader(
        runtime.loader,
        feed,
        device=device.target,
        workers=runtime.workers,
        augmentation=recipe.augmentation if feed.train else None,
        mean=manifest.mean,
    )


def runtime_of(runtime: Runtime, device: Device, loader: Loader, *, compiled: bool) -> RuntimeRecord:
    """What was asked of the machine, and what it came to."""
    effective = Effective(
        device=device.target.type,
        compile=compiled,
        precision=device.amp_dtype or "fp32",
        channels_last=runtime.channels_last,
        loader=loader.name,
        workers=loader.workers,
        threads=torch.get_num_threads(),
        tf32=device.tf32,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return RuntimeRecord(asked=runtime, effective=effective)


def _stop_if_diverged(step: int | None, schedule: OneCycle) -> None:
    if step is not None:
        raise NonFiniteError(
            f"the loss or a gradient is not finite at step {step} (epoch {step // schedule.steps_per_epoch + 1}, "
            f"learning rate {schedule.lr(step):.3g}); that step did not touch the weights: "
            "try a lower --max-lr, or --no-amp"
        )
