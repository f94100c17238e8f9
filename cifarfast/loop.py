"""The training loop."""

import math
from collections.abc import Callable

from cifarfast.checkpoint import Checkpoints, Progress
from cifarfast.display import Display
from cifarfast.errors import NonFiniteError, Stopped
from cifarfast.evaluation import evaluate
from cifarfast.metrics import EpochRow
from cifarfast.predictions import write_predictions
from cifarfast.recipe import Tta
from cifarfast.runfolder import RunFolder
from cifarfast.schedule import OneCycle
from cifarfast.setup import Setup
from cifarfast.stopping import StopSignals
from cifarfast.stopwatch import Stopwatch
from cifarfast.tta import Augmented


def run_epochs(
    setup: Setup,
    schedule: OneCycle,
    progress: Progress,
    watch: Stopwatch,
    folder: RunFolder,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochRow], object],
) -> None:
    """Train and evaluate from `progress` to the end of the schedule; each row is on disk before the next epoch starts.

    Raises:
        NonFiniteError: the loss, a gradient or a test image's answer became NaN or infinite.
        Stopped: SIGINT or SIGTERM came; the step under way and a checkpoint were finished.
    """
    step, device, train, test = setup.step, setup.device, setup.train_loader, setup.test_loader

    def save() -> None:
        step.check(schedule)
        progress.seconds = watch.read()
        checkpoints.write(step, progress, progress.steps(schedule.steps_per_epoch))

    done = progress.steps(schedule.steps_per_epoch)
    with Display(epochs=schedule.epochs, steps=schedule.steps, done=done) as display, StopSignals() as stop:
        for row in progress.rows:
            display.epoch(row)
        try:
            for epoch in range(progress.epoch, schedule.epochs):
                with (
                    watch.span("train"),
                    train.epoch(epoch, start=progress.batch, losses=step.ranking(new=not progress.batch)) as batches,
                ):
                    for number, batch in enumerate(watch.waiting("data", batches), progress.batch):
                        position = epoch * schedule.steps_per_epoch + number
                        step.set(lr=schedule.lr(position), momentum=schedule.momentum(position))
                        step(batch, augmented=train.augments, epoch=epoch, number=number, position=position)
                        progress.batch = number + 1
                        display.advance(epoch)
                        if device.reads_are_free or progress.batch == schedule.steps_per_epoch:
                            step.check(schedule)
                        stop.heed()
                        if checkpoints.due():
                            with watch.span("checkpoint", out_of="train"):
                                save()
                tta: Tta = setup.config.recipe.tta if epoch + 1 == schedule.epochs else "none"
                network = Augmented(step.model, tta)
                with watch.span("eval"), test.epoch(0) as batches:
                    tested = evaluate(network, stop.heeding(batches), device, mean=step.mean, std=step.std)
                trained, epoch_seconds = step.statistics.take(), watch.take("train")
                steps = (epoch + 1) * schedule.steps_per_epoch
                row = EpochRow(
                    epoch=epoch + 1,
                    steps=steps,
                    train_loss=trained.loss,
                    train_accuracy=trained.accuracy,
                    test_loss=tested.score.loss,
                    test_accuracy=tested.score.accuracy,
                    tta=tta,
                    lr=schedule.lr(steps - 1),
                    epoch_seconds=epoch_seconds,
                    eval_seconds=watch.take("eval"),
                    images_per_second=trained.images / epoch_seconds,
                    data_wait_percent=100 * watch.take("data") / epoch_seconds,
                    peak_memory_bytes=device.peak_memory_bytes(),
                )
                if not (math.isfinite(row.train_loss) and math.isfinite(row.test_loss)):
                    # As in fp16, where an epoch may end within a streak of steps that were left out.
                    raise NonFiniteError(
                        f"training diverged in epoch {row.epoch}: its mean loss is {row.train_loss} on training and "
                        f"{row.test_loss} on test images: try a lower --max-lr, or --no-amp"
                    )
                folder.append(row)
                write_predictions(folder.path, tested.logits, tested.labels, epoch=row.epoch)
                progress.finish(row)
                display.epoch(row)
                on_epoch(row)
                with watch.span("checkpoint"):
                    save()
        except Stopped as stopped:
            watch.take("eval")  # an evaluation that was cut short starts again
            save()
            raise Stopped(
                f"{stopped}: go on with python -m cifarfast.train --resume {folder.path}", stopped.signum
            ) from None
