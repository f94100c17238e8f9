"""The page of several runs, their curves over one another."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cifarfast.comparable import flat
from cifarfast.errors import UserError
from cifarfast.reporting.plots import overlaid
from cifarfast.reporting.style import Plot, styled
from cifarfast.reporting.writing import letters, percent, render, write
from cifarfast.runfolder import Run, read_run
from cifarfast.summary import Summary, machine, spread


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write one page of several runs, and its plots into a folder `plots` beside it.

    The same runs give the same bytes.

    Raises:
        UserError: a folder holds no run or none that has finished an epoch, or a file in it is damaged.
        OSError: the page or a plot cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not run.rows:
            raise UserError(f"{run.path} has finished no epoch yet: leave it out, or wait")
    lettered = dict(zip(letters(), runs, strict=False))
    with styled():
        plots = _draw(lettered)
    write(out, render("comparison.html.j2", _context(lettered, plots)), plots, {})
    return out


def _draw(runs: Mapping[str, Run]) -> list[Plot]:
    drawn = (
        ("test_accuracy", "Test accuracy, %", " %", 100.0),
        ("train_accuracy", "Training accuracy, %", " %", 100.0),
        ("test_loss", "Test loss, cross entropy in nats", "", 1.0),
        ("train_loss", "Training loss, cross entropy in nats", "", 1.0),
        ("lr", "Learning rate at the end of each epoch", "", 1.0),
    )
    plots = []
    for field, title, unit, scale in drawn:
        curves = [(letter, run, [scale * getattr(row, field) for row in run.rows]) for letter, run in runs.items()]
        by_epoch = [(letter, [row.epoch for row in run.rows], values) for letter, run, values in curves]
        plots.append(overlaid(field, title, unit, by_epoch, across="epoch"))
    by_time = [(letter, _minutes(run), [100 * row.test_accuracy for row in run.rows]) for letter, run in runs.items()]
    plots.insert(
        1, overlaid("test_accuracy_by_time", "Test accuracy by time, %", " %", by_time, across="minutes of training")
    )
    return plots


def _minutes(run: Run) -> list[float]:
    """Training time until the end of each epoch."""
    seconds = [row.epoch_seconds for row in run.rows]
    return [sum(seconds[: number + 1]) / 60 for number in range(len(seconds))]


def _context(runs: Mapping[str, Run], plots: Sequence[Plot]) -> dict[str, Any]:
    settings = [flat(asdict(replace(run.config, started=None))) for run in runs.values()]
    names = list(dict.fromkeys(name for each in settings for name in each))
    table = {name: [each.get(name) for each in settings] for name in names}
    differences = {name: values for name, values in table.items() if any(value != values[0] for value in values)}
    return {
        "entries": [_entry(letter, run) for letter, run in runs.items()],
        "plots": plots,
        "differences": differences,
        "lede": _lede(list(runs.values()), differences),
        "synthetic": [letter for letter, run in runs.items() if _kind(run) == "synthetic"],
    }


def _entry(letter: str, run: Run) -> dict[str, Any]:
    last, summary = run.rows[-1], run.summary
    epoch_seconds = spread([row.epoch_seconds for row in run.rows])
    images = run.config.recipe.batch_size * last.steps / last.epoch
    return {
        "letter": letter,
        "name": run.path.resolve().name,
        "folder": str(run.path),
        "kind": _kind(run),
        "seed": run.config.seed,
        "epochs": run.config.recipe.epochs,
        "last": last,
        "test_images": summary.data.test_images if summary else run.config.test_images,
        "epoch_seconds": epoch_seconds,
        "images_per_second": images / (epoch_seconds.median or epoch_seconds.first),
        "machine": _machine(summary) if summary else None,
    }


def _machine(summary: Summary) -> str:
    fingerprint = summary.fingerprint
    return f"{fingerprint.gpu or fingerprint.cpu}, {machine(fingerprint, summary.runtime.effective)}"


def _kind(run: Run) -> str:
    return run.summary.data.kind if run.summary else "unfinished"


def _lede(runs: Sequence[Run], differences: Mapping[str, Any]) -> str:
    """Mean and spread, where the runs are repetitions of one another."""
    accuracies = [run.rows[-1].test_accuracy for run in runs]
    if set(differences) != {"seed"} or any(run.summary is None for run in runs):
        return f"Test accuracies from {percent(min(accuracies))} to {percent(max(accuracies))}."
    return (
        f"The same settings with {len(runs)} seeds: test accuracy {percent(statistics.mean(accuracies))} in the mean, "
        f"standard deviation {100 * statistics.stdev(accuracies):.2f} points, {percent(min(accuracies))} to "
        f"{percent(max(accuracies))}, n = {len(runs)} runs."
    )
