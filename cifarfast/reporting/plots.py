"""The plots of a report: each a function of numbers. Call them within `style.styled()`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cifarfast.metrics import EpochRow
from cifarfast.predictions import Predictions, wilson_interval
from cifarfast.reporting.style import BLUE, GREEN, INK, MUTED, OCHRE, PAPER, PLUM, RED, TEAL, Plot, Sheet, short
from cifarfast.schedule import OneCycle

CYCLE = (BLUE, OCHRE, GREEN, PLUM, TEAL, RED)
_LABEL_GAP = 13.0  # points between two labels at the ends of lines


def accuracy(rows: Sequence[EpochRow], target: float) -> Plot:
    """Accuracy on the training and the test images after every epoch, and the target."""
    sheet = Sheet("accuracy", height=270)
    axes = sheet.axes
    axes.set_title("Accuracy, %")
    train, test = ([100 * getattr(row, f"{split}_accuracy") for row in rows] for split in ("train", "test"))
    axes.axhline(100 * target, color=MUTED, linewidth=1, dashes=(4, 3))
    _curves(axes, rows, [("train", OCHRE, train), ("test", BLUE, test)], [("target", MUTED, 100 * target)])
    return sheet.finish(
        f"Accuracy by epoch. Test: {_course(rows, test, ' %')}. Training: {_course(rows, train, ' %')}. "
        f"The target is {100 * target:.2f} %."
    )


def loss(rows: Sequence[EpochRow]) -> Plot:
    """Mean cross entropy of the training and the test images after every epoch."""
    sheet = Sheet("loss", height=270)
    axes = sheet.axes
    axes.set_title("Loss, cross entropy in nats")
    train, test = ([getattr(row, f"{split}_loss") for row in rows] for split in ("train", "test"))
    _curves(axes, rows, [("train", OCHRE, train), ("test", BLUE, test)])
    return sheet.finish(f"Loss by epoch. Test: {_course(rows, test)}. Training: {_course(rows, train)}.")


def learning_rate(one_cycle: OneCycle, rows: Sequence[EpochRow]) -> Plot:
    """Learning rate of every step; dots are the rates that training recorded."""
    sheet = Sheet("learning_rate", height=250)
    axes = sheet.axes
    axes.set_title("Learning rate")
    rates = [one_cycle.lr(step) for step in range(one_cycle.steps)]
    axes.plot(rates, color=BLUE)
    axes.plot([row.steps - 1 for row in rows], [row.lr for row in rows], ".", color=BLUE, markersize=7, clip_on=False)
    axes.set_ylim(bottom=0)
    _steps(axes, one_cycle)
    return sheet.finish(_cycle("Learning rate", rates, max(rates)))


def momentum(one_cycle: OneCycle) -> Plot:
    """Momentum of every step."""
    sheet = Sheet("momentum", height=250)
    axes = sheet.axes
    axes.set_title("Momentum")
    momenta = [one_cycle.momentum(step) for step in range(one_cycle.steps)]
    axes.plot(momenta, color=PLUM)
    _steps(axes, one_cycle)
    return sheet.finish(_cycle("Momentum", momenta, min(momenta)))


def time_split(rows: Sequence[EpochRow]) -> Plot:
    """Seconds of every epoch, split into waiting for data, training and evaluation."""
    sheet = Sheet("time", height=270)
    axes = sheet.axes
    axes.set_title("Seconds an epoch")
    waiting = np.array([row.epoch_seconds * row.data_wait_percent / 100 for row in rows])
    training = np.array([row.epoch_seconds for row in rows]) - waiting
    evaluation = np.array([row.eval_seconds for row in rows])
    parts = {"training": (TEAL, training), "waiting for data": (RED, waiting), "evaluation": (OCHRE, evaluation)}
    bottom = np.zeros(len(rows))
    for label, (colour, seconds) in parts.items():
        axes.bar([row.epoch for row in rows], seconds, bottom=bottom, color=colour, alpha=0.75, width=0.72, label=label)
        bottom += seconds
    axes.set_ylim(0, 1.2 * bottom.max())
    axes.legend(loc="upper left", ncols=3, handlelength=0.7, columnspacing=1.2, borderpad=0)
    _epochs(axes, rows[0].epoch - 0.5, rows[-1].epoch + 0.5)
    total = bottom.sum()
    shares = ", ".join(f"{label} {100 * seconds.sum() / total:.1f} %" for label, (_, seconds) in parts.items())
    return sheet.finish(f"Seconds of every epoch, between {bottom.min():.3g} and {bottom.max():.3g}: {shares}.")


def confusion(predictions: Predictions, names: Sequence[str]) -> Plot:
    """Which class was taken for which: a square for every pair, the darker the larger its share of the row."""
    sheet = Sheet("confusion", height=410)
    axes = sheet.axes
    counts = predictions.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    classes = range(len(names))
    for row, column in np.ndindex(counts.shape):
        count, share = int(counts[row, column]), float(shares[row, column])
        if not count:
            continue
        colour = BLUE if row == column else RED
        axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, alpha=_shade(share)))
        ink = PAPER if _shade(share) > 0.55 else INK
        axes.text(column, row, str(count), ha="center", va="center", fontsize=9 if count < 1000 else 8, color=ink)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    axes.set_xticks(
        classes, [short(name) for name in names], rotation=45, ha="left", rotation_mode="anchor", fontsize=10
    )
    axes.set_yticks(classes, [short(name) for name in names], fontsize=10)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("taken for")
    axes.set_ylabel("is", rotation=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    wrong = counts - np.diag(np.diag(counts))
    pairs = [np.unravel_index(place, wrong.shape) for place in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    most = [f"{names[i]} for {names[j]} ({wrong[i, j]})" for i, j in pairs if wrong[i, j]]
    return sheet.finish(
        f"Confusion matrix: {np.trace(counts):,} of {counts.sum():,} test images were taken for what they are. "
        + (f"Most often mistaken: {', '.join(most)}." if most else "")
    )


def per_class(predictions: Predictions, names: Sequence[str]) -> Plot:
    """Test accuracy of every class that has images, best first, with 95 % confidence intervals."""
    sheet = Sheet("per_class", height=330)
    axes = sheet.axes
    axes.set_title("Test accuracy by class, %")
    counts = predictions.confusion
    known = [(int(counts[i, i]), int(counts[i].sum()), name) for i, name in enumerate(names) if counts[i].sum()]
    known.sort(key=lambda entry: -entry[0] / entry[1])
    for place, (right, n, _) in enumerate(known):
        low, high = wilson_interval(right, n)
        axes.plot([100 * low, 100 * high], [place, place], color=BLUE, alpha=0.35, linewidth=4, solid_capstyle="butt")
        axes.plot(100 * right / n, place, "o", color=BLUE, markersize=6)
        axes.annotate(
            f"{100 * right / n:.1f}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.set_yticks(range(len(known)), [short(name) for _, _, name in known], fontsize=10)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    told = ", ".join(f"{name} {100 * right / n:.1f} %" for right, n, name in known)
    return sheet.finish(f"Test accuracy by class, best first: {told}.")


def overlaid(
    name: str, title: str, unit: str, runs: Sequence[tuple[str, Sequence[int | float], Sequence[float]]], *, across: str
) -> Plot:
    """One curve a run, each with its letter at its end.

    Args:
        name: of the file.
        title: what is drawn, with its unit.
        unit: that unit, as it follows a number.
        runs: letter, horizontal and vertical values of every run.
        across: what the horizontal axis is.
    """
    sheet = Sheet(name, height=280)
    axes = sheet.axes
    axes.set_title(title)
    end, labels = max(x[-1] for _, x, _ in runs), []
    for number, (letter, x, y) in enumerate(runs):
        colour = CYCLE[number % len(CYCLE)]
        axes.plot(x, y, color=colour, marker="o" if len(x) == 1 else "", linewidth=1.6, clip_on=False)
        if x[-1] == end:
            labels.append((letter, colour, y[-1]))
        else:
            axes.annotate(letter, (x[-1], y[-1]), xytext=(5, 0), textcoords="offset points", va="center", color=colour)
    axes.set_xlabel(across)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=across == "epoch"))
    label_ends(axes, labels)
    told = "; ".join(f"{letter} ends at {y[-1]:.4g}{unit}" for letter, _, y in runs)
    return sheet.finish(f"{title}, one curve a run: {told}.")


def _curves(
    axes: Axes,
    rows: Sequence[EpochRow],
    curves: Sequence[tuple[str, str, Sequence[float]]],
    levels: Sequence[tuple[str, str, float]] = (),
) -> None:
    epochs = [row.epoch for row in rows]
    for _, colour, values in curves:
        axes.plot(epochs, values, color=colour, marker="o", markersize=3.5, clip_on=False)
    _epochs(axes, epochs[0], max(epochs[-1], epochs[0] + 1))
    label_ends(axes, [*((label, colour, values[-1]) for label, colour, values in curves), *levels])


def _steps(axes: Axes, one_cycle: OneCycle) -> None:
    axes.margins(x=0)
    axes.set_xlabel(f"step, {one_cycle.steps_per_epoch:,} an epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _cycle(what: str, values: Sequence[float], peak: float) -> str:
    return (
        f"{what} over {len(values):,} steps: from {values[0]:.3g} to {peak:.3g} at step {values.index(peak):,}, "
        f"and to {values[-1]:.3g} at the end."
    )


def _epochs(axes: Axes, first: float, last: float) -> None:
    axes.set_xlim(first, last)
    axes.set_xticks(_round_epochs(math.ceil(first), math.floor(last)))
    axes.set_xlabel("epoch")


def _round_epochs(first: int, last: int) -> list[int]:
    """The first and the last, and round ones between them, at most eight in all."""
    step = next(
        step for step in (10**power * digit for power in range(9) for digit in (1, 2, 5)) if last - first <= 7 * step
    )
    between = range(step * (first // step + 1), last, step)
    return [first, *(epoch for epoch in between if min(epoch - first, last - epoch) > step / 2), last]


def label_ends(axes: Axes, labels: Sequence[tuple[str, str, float]]) -> None:
    """Names at the right of the axes, at the heights of what they name, moved apart where they would overlap."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # fixes the limits
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    wanted = sorted(
        (axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1], t, c) for t, c, y in labels
    )
    places: list[float] = []
    for place, _, _ in wanted:
        places.append(max(place * height, places[-1] + _LABEL_GAP if places else -1e9))
    over = max(0.0, places[-1] - height - 4)
    for place, (_, text, colour) in zip(places, wanted, strict=True):
        options: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (1, (place - over) / height), xytext=(7, 0), color=colour, annotation_clip=False, **options)


def _shade(share: float) -> float:
    """Opacity of a square: the root, so that a few per cent can be seen."""
    return float(np.sqrt(share)) * 0.85


def _course(rows: Sequence[EpochRow], values: Sequence[float], unit: str = "") -> str:
    return (
        f"from {values[0]:.4g}{unit} after epoch {rows[0].epoch} to {values[-1]:.4g}{unit} after epoch "
        f"{rows[-1].epoch}, between {min(values):.4g} and {max(values):.4g}"
    )
