"""The plots of a report of benchmarks. Call them within `style.styled()`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.reporting.peaks import Point, Roofline
from bench.reporting.wording import figure
from bench.statistics import Quartiles
from cifarfast.reporting.style import BLUE, GREEN, INK, MUTED, OCHRE, PLUM, RED, RULE, TEAL, Plot, Sheet, short

_BARS = 24
_ROW, _FRAME = 36, 62  # heights, in units of the plot
_BAR = 0.3
_LOGARITHMIC = 30
"""Where the longest bar would be so many times the shortest, there are dots on a logarithmic axis in place of bars."""
_LONGEST_NAME, _LONGEST_TITLE = 30, 54
_PRECISIONS = {"fp32": BLUE, "bf16": OCHRE, "fp16": PLUM}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A median with its quartiles."""

    name: str
    """What it is of."""
    value: Quartiles
    """In the unit of the axis."""
    told: str
    """The same in words."""
    is_baseline: bool = False
    """Whether the others are held against it."""
    noisy: bool = False
    """Whether a reader must be warned."""


def bars(name: str, title: str, entries: Sequence[Bar], *, end: float | None = None) -> Plot:
    """A bar for each entry, the first at the top, with a line from its first to its third quartile.

    Args:
        name: of the file.
        title: what is drawn, with its unit.
        entries: of which the first 24 are drawn.
        end: of the axis, by default the longest bar's.
    """
    drawn, left_out = entries[:_BARS], len(entries[_BARS:])
    sheet = Sheet(name, height=_FRAME + _ROW * len(drawn))
    axes = sheet.axes
    axes.set_title(short(title, _LONGEST_TITLE))
    smallest = min((entry.value.low for entry in drawn if entry.value.low > 0), default=1.0)
    largest = max(entry.value.high for entry in drawn)
    logarithmic = end is None and largest > _LOGARITHMIC * smallest
    for place, entry in enumerate(drawn):
        _bar(axes, place, entry, logarithmic=logarithmic)
    _frame(axes, len(drawn))
    if logarithmic:
        _logarithmic(axes, "x", smallest / 1.6, largest * 1.6)
    else:
        axes.set_xlim(0, end if end is not None else 1.04 * largest or 1.0)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(_tick())
    told = "; ".join(f"{entry.name} {entry.told}" for entry in drawn)
    rest = f"; {left_out} more are in the table" if left_out else ""
    return sheet.finish(f"{title}, medians: {told}{rest}.")


def roofline(name: str, found: Roofline) -> Plot:
    """The roofs that were measured and, lettered, the work beneath them."""
    sheet = Sheet(name, height=330)
    axes = sheet.axes
    axes.set_title("Roofline, GFLOP/s by FLOP a byte")
    slope, roofs = found.bytes_per_second / 1e9, {p: peak / 1e9 for p, peak in found.flops_per_second.items()}
    ridges = [roof / slope for roof in roofs.values()]
    left = min([*ridges, *(point.intensity for point in found.points)]) / 4
    right = max([*ridges, *(point.intensity for point in found.points)]) * 25
    lowest = min([slope * left, *(point.flops_per_second / 1e9 for point in found.points)])
    axes.plot([left, max(ridges)], [slope * left, slope * max(ridges)], color=MUTED, linewidth=1.4)
    for precision, roof in roofs.items():
        colour = _PRECISIONS.get(precision, TEAL)
        axes.plot([roof / slope, right], [roof, roof], color=colour, linewidth=1.4)
        label = f"{precision} {figure(roof)}"
        axes.annotate(label, (right, roof), xytext=(0, 4), textcoords="offset points", ha="right", color=colour)
    for point in found.points:
        at = (point.intensity, point.flops_per_second / 1e9)
        colour = next((c for p, c in _PRECISIONS.items() if p in point.name), GREEN)
        axes.plot(*at, "o", color=colour, markersize=6, markeredgewidth=0)
    _logarithmic(axes, "x", left, right)
    _logarithmic(axes, "y", lowest / 2, max(roofs.values()) * 2)
    axes.set_xlabel("FLOP for a byte that must be moved")
    axes.annotate(
        f"copy {figure(slope)} GB/s",
        (left, slope * left),
        xytext=(26, 0),
        va="center",
        textcoords="offset points",
        color=MUTED,
    )
    _letters(axes, found.points)
    roofs_told = ", ".join(f"{precision} {figure(roof)} GFLOP/s" for precision, roof in roofs.items())
    told = "; ".join(
        f"{letter}, {point.work}, {figure(point.flops_per_second / 1e9)} of "
        f"{figure(point.reachable / 1e9)} GFLOP/s at {figure(point.intensity)} FLOP a byte"
        for letter, point in lettered(found.points)
    )
    return sheet.finish(f"Roofline. Roofs: {roofs_told}; copy {figure(slope)} GB/s. {told or 'No work is known'}.")


def lettered(points: Sequence[Point]) -> list[tuple[str, Point]]:
    """The work and what it is called in the roofline."""
    return [(chr(ord("A") + place), point) for place, point in enumerate(points[:26])]


def _bar(axes: Axes, place: int, entry: Bar, *, logarithmic: bool) -> None:
    value, colour = entry.value, MUTED if entry.is_baseline else BLUE
    if logarithmic:
        axes.axhline(place + 0.15, color=RULE, linewidth=0.7)
        axes.plot(value.median, place + 0.15, "o", color=colour, markersize=7, markeredgewidth=0)
        axes.plot([value.low, value.high], [place + 0.15] * 2, color=colour, alpha=0.4, linewidth=5)
    else:
        axes.add_patch(Rectangle((0, place), value.median, _BAR, facecolor=colour, alpha=0.75))
        axes.plot([value.low, value.high], [place + _BAR / 2] * 2, color=INK, linewidth=1.2, solid_capstyle="butt")
    style = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom", "fontsize": 10}
    axes.annotate(short(entry.name, _LONGEST_NAME), (0, place), xytext=(0, 2), **style)  # type: ignore[arg-type]
    axes.annotate(
        entry.told,
        (1, place),
        xytext=(0, 2),
        ha="right",
        color=RED if entry.noisy else MUTED if entry.is_baseline else INK,
        **style,  # type: ignore[arg-type]
    )


def _frame(axes: Axes, count: int) -> None:
    axes.set_ylim(count - 1 + 0.55, -0.55)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _logarithmic(axes: Axes, axis: str, low: float, high: float) -> None:
    """A logarithmic axis with decades, told as numbers, few enough to be read; with 2 and 5 where those are too few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits, step = ((1, 2, 5), 1) if last - first <= 2 else ((1,), math.ceil((last - first) / 5))
    ticks = [digit * 10.0**power for power in range(first, last + 1, step) for digit in digits]
    getattr(axes, f"set_{axis}scale")("log")
    getattr(axes, f"set_{axis}lim")(low, high)
    shown = getattr(axes, f"{axis}axis")
    shown.set_major_locator(FixedLocator(ticks))
    shown.set_minor_locator(NullLocator())
    shown.set_major_formatter(_tick())


def _tick() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:,.10g}")


def _letters(axes: Axes, points: Sequence[Point]) -> None:
    """A letter beside each point, at the side where no other is."""
    taken: list[tuple[float, float]] = []
    for letter, point in lettered(points):
        at = (point.intensity, point.flops_per_second / 1e9)
        x, y = (float(value) for value in axes.transData.transform(at))
        near = sum(math.hypot(x - other_x, y - other_y) < 24 for other_x, other_y in taken)
        taken.append((x, y))
        offset = [(8, 0), (-8, 0), (0, 11), (0, -11)][near % 4]
        side = {8: "left", -8: "right"}.get(offset[0], "center")
        axes.annotate(letter, at, xytext=offset, textcoords="offset points", ha=side, va="center", fontweight="bold")
