"""A run from its beginning, or from where it was left, to its end: `fit` and `resume`."""

import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cifarfast.checkpoint import Checkpoints, Progress, restore
from cifarfast.config import CHECKPOINT_MINUTES, RunConfig, SavedConfig, run_config, saved_config
from cifarfast.dataset.manifest import Manifest
from cifarfast.device import compile_cache, forget_compilations
from cifarfast.door import note
from cifarfast.errors import NonFiniteError, Stopped, UserError
from cifarfast.loop import run_epochs
from cifarfast.lr_range import range_of_setup
from cifarfast.metrics import EpochRow
from cifarfast.model import flops_per_image
from cifarfast.optim import set_shares
from cifarfast.range_record import check_no_range, read_range, write_range
from cifarfast.range_test import Sweep
from cifarfast.recipe import RATES, Recipe
from cifarfast.runfolder import Diverged, RunFolder, read_config, read_summary
from cifarfast.runtime import Runtime
from cifarfast.schedule import one_cycle
from cifarfast.setup import Setup, Site, set_up
from cifarfast.stopwatch import Stopwatch
from cifarfast.summary import Compile, Effective, RuntimeRecord, Summary, of_rows

OnEpoch = Callable[[EpochRow], object]


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
    sweep: Sweep | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    on_epoch: OnEpoch = lambda row: None,
    site: Site | None = None,
) -> Summary:
    """Train one network from scratch and leave a run folder.

    Args:
        data: a converted folder (`python -m data_prep.to_ffcv`).
        out: the run folder to make; one that already holds a run is refused.
        seed: origin of the initialisation, the order, the augmentation and the dropout.
        train_images: use only so many training images, evenly spaced through the split.
        test_images: likewise for evaluation.
        verify: hold the data against its SHA-256 digests first, not only against its sizes.
        sweep: find the recipe's max_lr first, by this range test; its answer takes the place of what the recipe
            says, and the other rates of the schedule keep their ratios to it.
        checkpoint_minutes: longest time between two checkpoints; there is one at the end of every epoch too.
        on_epoch: told of every epoch as it ends.
        site: where earlier runs were executed, with what they have compiled, as in `set_up`. The run is the same,
            bit for bit, with and without.

    Raises:
        UserError: the data, the folder, the device or a size is unusable, or the range test suggests no rate;
            nothing was trained. Or a loader or a disk failed on the way: the run can be resumed.
        NonFiniteError: training diverged; the run folder keeps the epochs before.
        Stopped: SIGINT or SIGTERM came; the run can be resumed.
    """
    start = time.perf_counter()
    config = RunConfig(
        recipe=recipe,
        runtime=runtime,
        data=data,
        seed=seed,
        train_images=train_images,
        test_images=test_images,
        verify=verify,
        sweep=sweep,
    )
    setup = set_up(config, site)
    with RunFolder(out) as folder:
        if sweep is not None:
            check_no_range(out)
        started = _now()
        folder.write_config(saved_config(config, setup.manifest, started=started))
        return _train(setup, folder, started, start, checkpoint_minutes, on_epoch)


def resume(
    run: Path,
    config: RunConfig | None = None,
    *,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    on_epoch: OnEpoch = lambda row: None,
    site: Site | None = None,
) -> Summary:
    """Go on with a run that was interrupted; it ends with the weights and metrics that it would have had, bit for bit.

    That holds for the same machine, versions and number of threads, with deterministic kernels: on a CPU all
    are. A run that is complete is left as it is.

    Args:
        run: its folder.
        config: as asked now, by default as the run was. What decides neither weights nor metrics may differ
            (workers, the place of the data), and there may be more epochs: the schedule stretches from here on.
        checkpoint_minutes, on_epoch, site: as in `fit`.

    Raises:
        UserError: the folder holds no run or is in use, something else was asked than the run was, or as in `fit`.
        NonFiniteError, Stopped: as in `fit`.
    """
    start = time.perf_counter()
    with RunFolder(run, resume=True) as folder:
        saved = read_config(run)
        config = run_config(config or saved)
        if changed := changed_flags(saved, config, longer=True):
            raise UserError(f"{run} was not begun with {', '.join(changed)}: leave that out, or start another run")
        summary = read_summary(run)
        if summary is not None and summary.epochs == config.recipe.epochs:
            note(f"{run} is complete: nothing to resume (more --epochs go on from here)")
            return summary
        setup = set_up(replace(config, sweep=saved.sweep), site)
        if not of_data(saved, setup.manifest):
            raise UserError(f"{config.data} holds other data than {run} was begun with: name that with --data")
        return _train(setup, folder, saved.started or _now(), start, checkpoint_minutes, on_epoch)


def _train(
    setup: Setup, folder: RunFolder, started: str, start: float, checkpoint_minutes: float, on_epoch: OnEpoch
) -> Summary:
    step, device = setup.step, setup.device
    compiled = _compiled(setup)
    effective = setup.effective(compiled=compiled is not None)
    config = _with_found_lr(setup, effective, folder, start)
    schedule = one_cycle(config.recipe, setup.train_loader.feed.batches())
    watch = Stopwatch(device.synchronize)
    watch.add({"run": time.perf_counter() - start})
    progress, first = Progress(), None
    if folder.resumes:
        if found := restore(folder.checkpoints, step, note, steps_per_epoch=schedule.steps_per_epoch):
            first, state = found
            _check_same_execution(state.effective, effective, folder.path)
            progress = state.progress
            watch.add(progress.seconds)
        else:
            note(f"{folder.path} has no checkpoint to go on from: starting at the beginning")
        progress.resumed_at.append(progress.steps(schedule.steps_per_epoch))
    captured = step.capture(augmented=setup.train_loader.augments)
    watch.add({"run": captured or 0.0})
    folder.write_config(saved_config(config, setup.manifest, started=started))
    folder.rewrite(progress.rows)
    folder.withdraw_diverged()
    checkpoints = Checkpoints(folder.checkpoints, effective, minutes=checkpoint_minutes, first=first)
    try:
        with watch.span("run"), checkpoints:
            run_epochs(setup, schedule, progress, watch, folder, checkpoints, on_epoch)
    except NonFiniteError as error:
        folder.write_diverged(Diverged(epochs=progress.epoch, reason=str(error)))
        raise
    folder.write_model(step.model)
    data = setup.data()
    summary = Summary(
        recipe=config.recipe,
        sweep=config.sweep,
        seed=config.seed,
        runtime=RuntimeRecord(asked=config.runtime, effective=effective),
        fingerprint=setup.fingerprint,
        data=data,
        started=started,
        total_seconds=watch.take("run"),
        checkpoint_seconds=watch.take("checkpoint"),
        resumed_at=progress.resumed_at,
        model_parameters=sum(p.numel() for p in step.model.parameters() if p.requires_grad),
        flops_per_image=flops_per_image(config.recipe),
        compile_seconds=compiled,
        capture_seconds=captured,
        skipped_steps=step.guard.skipped_steps(),
        **of_rows(config.recipe, data, progress.rows),
    )
    folder.write_summary(summary)
    return summary


def _with_found_lr(setup: Setup, effective: Effective, folder: RunFolder, start: float) -> RunConfig:
    """The configuration with the max_lr that the range test in the folder suggests, if it asks for one.

    There is none in the folder yet unless the run was resumed. Where it is gone, though there has been training, what
    it found is in config.json.
    """
    config, path = setup.config, folder.path
    if config.sweep is None:
        return config
    record = read_range(path, hint="remove it: what it found is in config.json too, or it is made again")
    if record is None and folder.has_checkpoints:
        saved = read_config(path).recipe
        recipe = replace(config.recipe, max_lr=saved.max_lr, head_lr=saved.head_lr, bias_lr=saved.bias_lr)
        set_shares(setup.step.optimizer, recipe)
        return replace(config, recipe=recipe)
    try:
        record = record or range_of_setup(setup, effective, config.sweep, start=start)
    except Stopped as stopped:
        raise Stopped(f"{stopped}: go on with python -m cifarfast.train --resume {path}", stopped.signum) from None
    found = record.result.answer
    if found.lr is None:
        folder.withdraw_config()
        raise UserError(f"the range test suggests no learning rate ({found.reason}): name one with --max-lr")
    write_range(path, record)
    note(f"max_lr {found.lr:.3g}, as the range test suggests")
    recipe = replace(config.recipe, max_lr=found.lr)
    if recipe.optimizer == "muon":  # the sweep moved all rates together
        swept = record.recipe
        ratio = found.lr / swept.max_lr
        recipe = replace(recipe, head_lr=swept.head_lr * ratio, bias_lr=swept.bias_lr * ratio)
        set_shares(setup.step.optimizer, recipe)
    return replace(config, recipe=recipe)


def _compiled(setup: Setup) -> Compile | None:
    """What compiling the step cost, where that is asked for and works; nothing where an earlier run has done it."""
    step = setup.step
    if not setup.config.runtime.compile:
        return None
    if step.compiled:
        return Compile(seconds=0.0, cache="in-process")
    forget_compilations()
    seconds = step.compile(note)
    return None if seconds is None else Compile(seconds=seconds, cache=compile_cache())


def of_data(saved: SavedConfig, manifest: Manifest) -> bool:
    """Whether a run was begun with this data."""
    return (manifest.train.sha256, manifest.test.sha256) == (saved.train_sha256, saved.test_sha256)


def changed_flags(saved: SavedConfig, now: RunConfig, *, longer: bool = False) -> list[str]:
    """The flags of `now` that would make it another run; where it may be `longer`, more epochs do not.

    Nor do loaders that deliver the same: all but `torchvision`, which augments by itself.
    """
    before, after = _flat(run_config(saved)), _flat(now)
    free = {"data", "verify", "workers"} | ({"epochs"} if longer and after["epochs"] > before["epochs"] else set())
    free |= {"loader"} if "torchvision" not in (before["loader"], after["loader"]) else set()
    return [
        f"--{'recipe' if name == 'name' else name.replace('_', '-')} {value} (but {before[name]})"
        for name, value in after.items()
        if value != before[name] and name not in free
    ]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _flat(config: RunConfig) -> dict[str, Any]:
    """Flags and values, the groups of them dissolved as on the command line."""
    flat: dict[str, Any] = {}
    groups = [asdict(replace(config, sweep=None))]
    for group in groups:
        for name, value in group.items():
            if isinstance(value, dict):
                groups.append(value)
            else:
                flat[name] = value
    if config.sweep is not None:
        if config.recipe.optimizer == "muon":  # whose rates the sweep moves together
            flat |= {name: f"{flat[name] / flat['max_lr']:.9g} of --max-lr" for name in RATES}
        flat["max_lr"] = "auto"
    return flat


def _check_same_execution(before: Effective, now: Effective, run: Path) -> None:
    """Refuse what would change the run's numbers beyond their last bits; say what may change those."""
    same = replace(now, loader=before.loader, workers=before.workers, threads=before.threads)
    differing = [
        f"{field.name} {getattr(now, field.name)} (was {getattr(before, field.name)})"
        for field in fields(Effective)
        if getattr(same, field.name) != getattr(before, field.name)
    ]
    if differing:
        raise UserError(f"{run} cannot go on here, because {', '.join(differing)}: resume it where it ran before")
    if now.threads != before.threads:
        note(f"{now.threads} threads where {run} was begun with {before.threads}: the last bits may differ")
