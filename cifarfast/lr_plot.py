"""The picture of a range test."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from cifarfast.files import replacing
from cifarfast.range_test import LrRange

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Two of the lines may coincide and are still told apart.
_STYLES = {"steepest": ("tab:red", "-"), "minimum_tenth": ("tab:green", "--"), "valley": ("black", ":")}


def save_plot(path: Path, result: LrRange, *, title: str) -> None:
    """Atomically write the curve as a PNG of 1200 x 750 pixels."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    draw(axes, result)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def draw(axes: "Axes", result: LrRange) -> None:
    """Draw losses, smoothed losses and suggestions over the learning rate.

    What the picture shows is the fall of the smoothed loss; a rise beyond it runs out at the top.
    """
    losses = [(point.lr, point.loss) for point in result.points if point.loss is not None]
    smoothed = [(point.lr, point.smoothed) for point in result.points if point.smoothed is not None]
    if losses:
        axes.plot(*zip(*losses, strict=True), color="tab:blue", alpha=0.35, marker=".", label="loss")
        axes.plot(*zip(*smoothed, strict=True), color="tab:blue", linewidth=2, label="smoothed")
        _show_the_fall(axes, [loss for _, loss in smoothed])
    for name, (colour, style) in _STYLES.items():
        lr = getattr(result.suggestions, name).lr
        if lr is not None:
            axes.axvline(lr, color=colour, linestyle=style, label=f"{name} {lr:.3g}")
    if result.sweep.mode == "exponential":
        axes.set_xscale("log")
    axes.set_xlim(result.sweep.start_lr, result.sweep.end_lr)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(visible=True, alpha=0.3)
    if losses:
        axes.legend()


def _show_the_fall(axes: "Axes", smoothed: list[float]) -> None:
    lowest = min(smoothed)
    highest = max(smoothed[: smoothed.index(lowest) + 1])
    if highest > lowest:
        margin = 0.3 * (highest - lowest)
        axes.set_ylim(lowest - margin, highest + margin)
