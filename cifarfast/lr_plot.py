"""The picture of a range test."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from cifarfast.files import replacing
from cifarfast.range_test import LrRange
from cifarfast.reporting.style import BLUE, GREEN, INK, RED, Plot, Sheet, styled

# Two of the lines may coincide and are still told apart.
_STYLES = {"steepest": (RED, "-"), "minimum_tenth": (GREEN, "--"), "valley": (INK, ":")}


def save_plot(path: Path, result: LrRange, *, title: str) -> None:
    """Atomically write the curve as a PNG of 1200 x 900 pixels."""
    with styled():
        sheet = draw(result, title=title)
        with replacing(path) as temporary:
            sheet.save_png(temporary)


def range_plot(result: LrRange) -> Plot:
    """The curve for a report; call it within `styled()`."""
    told = [
        f"{name.replace('_', ' ')} {suggestion.lr:.3g}"
        for name, suggestion in vars(result.suggestions).items()
        if suggestion.lr is not None
    ]
    return draw(result, title="Loss over learning rate").finish(
        f"Loss over a learning rate from {result.points[0].lr:.3g} to {result.points[-1].lr:.3g}. "
        + (f"Suggestions: {', '.join(told)}." if told else "It supports no suggestion.")
    )


def draw(result: LrRange, *, title: str) -> Sheet:
    """Draw losses, smoothed losses and suggestions over the learning rate.

    What the picture shows is the fall of the smoothed loss; a rise beyond it runs out at the top.
    """
    sheet = Sheet("lr_range", height=300)
    axes = sheet.axes
    axes.set_title(title)
    losses = [(point.lr, point.loss) for point in result.points if point.loss is not None]
    smoothed = [(point.lr, point.smoothed) for point in result.points if point.smoothed is not None]
    if losses:
        axes.plot(*zip(*losses, strict=True), ".", color=BLUE, alpha=0.45, label="loss")
        axes.plot(*zip(*smoothed, strict=True), color=BLUE, linewidth=2, label="smoothed")
        _show_the_fall(axes, [loss for _, loss in smoothed])
    for name, (colour, style) in _STYLES.items():
        lr = getattr(result.suggestions, name).lr
        if lr is not None:
            axes.axvline(lr, color=colour, linestyle=style, linewidth=1.2, label=f"{name.replace('_', ' ')} {lr:.3g}")
    if result.sweep.mode == "exponential":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(result.sweep.start_lr, result.sweep.end_lr)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    if losses:
        axes.figure.legend(loc="outside lower center", ncols=3)  # curve and lines may be anywhere within
    return sheet


def _show_the_fall(axes: Axes, smoothed: Sequence[float]) -> None:
    lowest = min(smoothed)
    highest = max(smoothed[: smoothed.index(lowest) + 1])
    if highest > lowest:
        margin = 0.3 * (highest - lowest)
        axes.set_ylim(lowest - margin, highest + margin)
