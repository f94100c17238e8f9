"""The course of a study: what is finished stays, what was interrupted goes on, the rest is trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifarfast.config import CHECKPOINT_MINUTES, RunConfig
from cifarfast.dataset.manifest import Manifest, check_folder
from cifarfast.door import note
from cifarfast.errors import NonFiniteError, Stopped, UserError
from cifarfast.loaders import check_augmentation
from cifarfast.runfolder import CONFIG_NAME, read_config
from cifarfast.setup import Site, feed_of, open_site
from cifarfast.step import compiled_part
from cifarfast.studying.plan import Plan
from cifarfast.studying.runs import StudyRun, is_done, read_runs, read_study_run
from cifarfast.training import changed_flags, fit, of_data, resume

MOST_COMPILED = 8
"""Versions of one function that torch.compile keeps (`torch._dynamo.config.recompile_limit`); others run eagerly."""
_LOCK_NAME = ".lock"


def run_study(
    plan: Plan,
    *,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    on_run: Callable[[StudyRun], object] = lambda run: None,
) -> None:
    """Train whatever of a plan is not done: each run as `fit` would alone, bit for bit, but on one site.

    The step is compiled for the first run of every `compiled_part` of a recipe, and reset for the others. A run that
    diverges is recorded as that, and the study goes on. Where nothing is left to do, the data is not asked for. What a
    run says of its memory is the most that the process has had so far, earlier runs included; opening data and device
    is in no run's seconds.

    Args:
        checkpoint_minutes: as in `fit`.
        on_run: told of every run as it ends.

    Raises:
        UserError: a folder holds a run of other settings or other data, another study is at work in `plan.out`, or
            as in `fit` of the first run; nothing was trained. Or as in `fit` of a later one: the same plan goes on.
        Stopped: SIGINT or SIGTERM came; likewise.
    """
    _check_begun(plan)
    if all(is_done(folder) for folder, _ in plan.runs()):
        return
    manifest = check_folder(plan.usual.data, full=plan.usual.verify)
    _check_fitting(plan, manifest)
    with study_lock(plan.out):
        site, runs = open_site(plan.usual, manifest), list(plan.runs())
        for number, (folder, config) in enumerate(runs, 1):
            if not is_done(folder):
                note(f"{folder}: run {number} of {len(runs)}")
                _train(folder, config, site, checkpoint_minutes)
                on_run(read_study_run(folder))


def _train(folder: Path, config: RunConfig, site: Site, checkpoint_minutes: float) -> None:
    try:
        if (folder / CONFIG_NAME).exists():
            resume(folder, config, checkpoint_minutes=checkpoint_minutes, site=site)
        else:
            fit(**vars(config), out=folder, checkpoint_minutes=checkpoint_minutes, site=site)
    except NonFiniteError as error:
        note(str(error))  # and recorded in the folder
    except Stopped as stopped:
        raise Stopped(f"stopped by {stopped.signum.name}: the same command goes on", stopped.signum) from None


def _check_begun(plan: Plan) -> None:
    """Refuse folders that hold something else than the plan says."""
    for folder, config in plan.runs():
        if (folder / CONFIG_NAME).exists() and (changed := changed_flags(read_config(folder), config)):
            raise UserError(f"{folder} was not begun with {', '.join(changed)}: choose another --out, or move it away")


def _check_fitting(plan: Plan, manifest: Manifest) -> None:
    """Refuse what could not be trained, or not be put together with the runs that are there."""
    usual = plan.usual
    for recipe in plan.recipes.values():
        for split, limit in (("train", usual.train_images), ("test", usual.test_images)):
            feed_of(usual.data, manifest, split, recipe, limit, seed=0)
        check_augmentation(usual.runtime.loader, recipe.augmentation)
    for run in read_runs(plan.out):
        config = run.run.config
        if not of_data(config, manifest):
            raise UserError(f"{run.run.path} is of other images than {usual.data} holds: choose another --out")
        for name in ("train_images", "test_images"):
            before, now = getattr(config, name), getattr(usual, name)
            if before != now:
                flag = f"--{name.replace('_', '-')}"
                given = f"with {flag} {before}" if before else f"without {flag}"
                raise UserError(f"{run.run.path} was made {given}: do the same, or choose another --out")
    kinds = len(
        {(compiled_part(each), each.work(epoch).size) for each in plan.recipes.values() for epoch in range(each.epochs)}
    )
    if usual.runtime.compile and kinds > MOST_COMPILED:
        raise UserError(
            f"--recipe asks for {kinds} compiled versions of the step, of which {MOST_COMPILED} fit into one "
            "process: train them by several commands with the same --out"
        )


@contextmanager
def study_lock(out: Path) -> Iterator[None]:
    """Hold a study's folder, which is made if need be, for this process alone.

    Raises:
        UserError: another one holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(out / _LOCK_NAME).acquire(timeout=0)
    except Timeout:
        raise UserError(f"{out} is in use by another study: wait for it, stop it, or choose another --out") from None
    with held:
        yield
