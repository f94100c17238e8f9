"""The page of one run."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cifarfast.lr_plot import range_plot
from cifarfast.model import layer_table
from cifarfast.predictions import Predictions, wilson_interval
from cifarfast.reporting import plots
from cifarfast.reporting.evidence import Absent, Evidence, gather
from cifarfast.reporting.pictures import png, sheet
from cifarfast.reporting.style import Plot, styled
from cifarfast.reporting.writing import duration, render, write
from cifarfast.runfolder import Run
from cifarfast.schedule import OneCycle, one_cycle
from cifarfast.summary import Data, machine, spread

REPORT_NAME = "report.html"
_STOPPED = {
    "end": "it went to its end",
    "diverged": "it ended when the loss diverged",
    "non-finite": "it ended when the loss was not finite any more",
}


def write_report(
    folder: Path,
    *,
    out: Path | None = None,
    data: Path | None = None,
    lr_range: Path | None = None,
    computing: Callable[[int], None] | None = None,
) -> Path:
    """Write the report of a run, and its plots into a folder `plots` beside it.

    The same run gives the same bytes.

    Args:
        folder: the run folder; the run may be unfinished.
        out: the page, by default report.html in the run folder.
        data, lr_range, computing: as in `gather`.

    Returns:
        The page.

    Raises:
        UserError: the folder holds no run, or a file in it is damaged.
        OSError: the page or a plot cannot be written.
    """
    evidence = gather(folder, data=data, lr_range=lr_range, computing=computing)
    with styled():
        drawn = {plot.name: plot for plot in _draw(evidence)}
    page = out or folder / REPORT_NAME
    photographs = {"misclassified": evidence.mistakes, "augmented": evidence.augmented}
    sheets = {
        name: png(sheet([image.pixels for image in images]))
        for name, images in photographs.items()
        if not isinstance(images, Absent) and images
    }
    write(page, render("report.html.j2", _context(evidence, drawn)), drawn.values(), sheets)
    return page


def _draw(evidence: Evidence) -> list[Plot]:
    run = evidence.run
    drawn = []
    if run.rows:
        target = run.config.recipe.target_accuracy
        drawn += [plots.accuracy(run.rows, target), plots.loss(run.rows), plots.time_split(run.rows)]
        drawn += [plots.learning_rate(_schedule(run), run.rows), plots.momentum(_schedule(run))]
    if not isinstance(evidence.range_test, Absent):
        drawn.append(range_plot(evidence.range_test.result))
    if not isinstance(evidence.predictions, Absent):
        names = run.config.class_names
        drawn += [plots.confusion(evidence.predictions, names), plots.per_class(evidence.predictions, names)]
    return drawn


def _context(evidence: Evidence, drawn: dict[str, Plot]) -> dict[str, Any]:
    run, range_test = evidence.run, evidence.range_test
    recipe, summary, rows = run.config.recipe, run.summary, run.rows
    context: dict[str, Any] = {
        "name": run.path.resolve().name,
        "folder": str(run.path),
        "lede": _lede(evidence),
        "synthetic": evidence.kind == "synthetic",
        "recipe": recipe,
        "summary": summary,
        "rows": rows,
        "last": rows[-1] if rows else None,
        "drawn": {**dict.fromkeys(("lr_range", "confusion")), **drawn},
        "range_test": range_test,
        "predictions": evidence.predictions,
        "mistakes": evidence.mistakes,
        "augmented": evidence.augmented,
        "layers": _layers(run),
        "groups": _groups(run),
    }
    if rows:
        context |= _headline(run)
    if not isinstance(range_test, Absent):
        context["stopped"] = _STOPPED[range_test.result.stopped]
        context["suggestions"] = {
            rule: suggestion.reason if suggestion.lr is None else f"{suggestion.lr:.3g}"
            for rule, suggestion in vars(range_test.result.suggestions).items()
        }
    if isinstance(evidence.predictions, Predictions):
        images = np.bincount(evidence.predictions.labels)
        context["right"] = int(np.trace(evidence.predictions.confusion))
        context["counted"] = round(rows[-1].test_accuracy * int(images.sum()))
        context["images_per_class"] = sorted({int(images[images > 0].min()), int(images.max())})
    return context


def _headline(run: Run) -> dict[str, Any]:
    rows, summary, schedule = run.rows, run.summary, _schedule(run)
    epoch_seconds = spread([row.epoch_seconds for row in rows])
    test_images = summary.data.test_images if summary else run.config.test_images
    total = sum(row.epoch_seconds for row in rows)
    return {
        "test_images": test_images,
        "interval": wilson_interval(round(rows[-1].test_accuracy * test_images), test_images) if test_images else None,
        "verdict": _verdict(run),
        "epoch_seconds": epoch_seconds,
        "images_per_second": run.config.recipe.batch_size
        * schedule.steps_per_epoch
        / (epoch_seconds.median or epoch_seconds.first),
        "waiting": sum(row.data_wait_percent * row.epoch_seconds for row in rows) / total,
        "machine": machine(summary.fingerprint, summary.runtime.effective) if summary else None,
        "durations": _durations(run),
        "on_schedule": all(
            row.steps <= schedule.steps and np.isclose(schedule.lr(row.steps - 1), row.lr, rtol=1e-6) for row in rows
        ),
    }


def _lede(evidence: Evidence) -> str:
    run, summary = evidence.run, evidence.run.summary
    data = {"cifar10": "CIFAR-10", "custom": "images of its own", "synthetic": "synthetic data"}.get(evidence.kind)
    sentence = f"Recipe {run.config.recipe.name}, seed {run.config.seed}, on {data or 'data not known yet'}"
    if summary is None:
        return f"{sentence}. Unfinished: {len(run.rows)} of {run.config.recipe.epochs} epochs are done."
    started = datetime.fromisoformat(summary.started)
    epochs = "1 epoch" if summary.epochs == 1 else f"{summary.epochs} epochs"
    return (
        f"{sentence}: {_images(summary.data)}; {epochs} of "
        f"{run.rows[0].steps // run.rows[0].epoch:,} steps, begun {started.day} {started:%B %Y, %H:%M} UTC."
    )


def _images(data: Data) -> str:
    """How many images, of how many."""
    used = ((data.train_images, data.train_images_available), (data.test_images, data.test_images_available))
    train, test = (f"{n:,}" if n == available else f"{n:,} of {available:,}" for n, available in used)
    return f"{train} training and {test} test images"


def _verdict(run: Run) -> str:
    if run.summary is None:
        return "the run is unfinished"
    if run.summary.target_met is None:
        return "not judged: not the whole recipe on real CIFAR-10"
    return "met" if run.summary.target_met else "not met"


def _durations(run: Run) -> dict[str, str]:
    rows, summary = run.rows, run.summary
    durations: dict[str, float | None] = {
        "training, all epochs": sum(row.epoch_seconds for row in rows),
        "of it waiting for data": sum(row.epoch_seconds * row.data_wait_percent / 100 for row in rows),
        "evaluation, all epochs": sum(row.eval_seconds for row in rows),
    }
    if summary is not None:
        compiled = summary.compile_seconds
        cache = f"compiling, {compiled.cache} cache" if compiled and compiled.cache else "compiling"
        durations[cache] = compiled.seconds if compiled else None
        if summary.capture_seconds is not None:
            durations["capturing CUDA graphs"] = summary.capture_seconds
        durations["waiting for checkpoints"] = summary.checkpoint_seconds
        durations["the whole run"] = summary.total_seconds
    told = {name: "none" if value is None else duration(value) for name, value in durations.items()}
    told["most memory"] = f"{rows[-1].peak_memory_bytes / 1e9:.2f} GB"
    return told


def _schedule(run: Run) -> OneCycle:
    recipe = run.summary.recipe if run.summary else run.config.recipe
    return one_cycle(recipe, run.rows[0].steps // run.rows[0].epoch)


def _layers(run: Run) -> list[Any]:
    """The layers, none where the run's network was another one than today's of that name."""
    layers = layer_table(run.config.recipe)
    known = sum(layer.parameters for layer in layers)
    return layers if run.summary is None or run.summary.model_parameters == known else []


def _groups(run: Run) -> dict[str, dict[str, Any]]:
    """All settings and facts, by the record that they are from."""
    config = asdict(run.config)
    recipe, sweep, asked = (config.pop(name) for name in ("recipe", "sweep", "runtime"))
    augmentation = recipe.pop("augmentation")
    groups = {"Run": config, "Recipe": recipe, "Augmentation": augmentation, "Runtime, as asked": asked}
    if sweep is not None:
        groups["Range test"] = sweep
    if run.summary is not None:
        summary = asdict(run.summary)
        fingerprint = summary["fingerprint"]
        packages = fingerprint.pop("packages")
        groups |= {
            "Runtime, in effect": summary["runtime"]["effective"],
            "Data": summary["data"],
            "Machine and code": fingerprint,
            "Packages": packages,
            "Outcome": {name: value for name, value in summary.items() if not isinstance(value, (dict, list))},
        }
    return groups
