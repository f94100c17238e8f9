"""The contests of a report, each a plot beside a table. Call it within `style.styled()`, for it draws."""

import re
from collections.abc import Callable, Sequence
from itertools import chain, count

from bench.reporting.blocks import Absent, Block, Column, Drawing, Table, Title, Words
from bench.reporting.findings import Section
from bench.reporting.plots import Bar, bars
from bench.reporting.throughput import PEAKS, Contest, Row
from bench.reporting.wording import NOISY, NONE, TIMES, figure, interval, middle, scaled, unit_of
from bench.statistics import NOISY_SPREAD, Quartiles
from cifarfast.reporting.style import Plot

Part = tuple[Column, Callable[[Row], str]]
"""A column of a contest's table, and its cell for a row."""

WHAT = {
    "loaders": ("Loaders, raw", "One epoch of batches, thrown away."),
    "loaders-augmented": (
        "Loaders, augmented",
        "One epoch to the input of the network: the loader and our augmentation; torchvision augments by itself.",
    ),
    "augment": ("Augmentation", "A batch from bytes to the input of the network: crop, flip, cutout, normalisation."),
    "step": ("Training step", "Augmentation, forward, backward and update of one batch."),
    "forward-backward": ("Forward and backward", "A training step without augmentation and update."),
    "forward": ("Forward", "The network in training mode, alone."),
    "dropout": (
        "Dropout",
        "Forward and backward in the precision of --amp, random numbers included: torch's own dropout, masks, none.",
    ),
    "pooling": (
        "Convolution and pooling",
        "What two stages of speedrun-94 do first, forward and backward, in bf16: by torch and by Winograd's algorithm.",
    ),
    "epoch": (
        "Epoch",
        "The production loop in epochs of a few steps, where the start of a loader weighs more than in whole ones.",
    ),
    "evaluate": (
        "Evaluation",
        "A batch of noise through the network, without gradients: normalisation, forward, loss and accuracy.",
    ),
    "convert": ("Conversion", "A source of images to the files that loaders read."),
    "checkpoint": ("Checkpoint", "All that an exact resume needs, to the disk."),
    "start-up": ("Start-up", "From the command to the end of the first optimizer step."),
}
"""Groups as a person calls them, and what is timed."""

_ENOUGH = 6
_FEW = (
    "Where there are fewer than 6 rounds, the interval is as wide as all of them, and the true median is outside more "
    "often than 1 time in 20: 2 in 32 with five, 2 in 16 with four, 2 in 8 with three, 2 in 4 with two."
)
"""A median lies outside all n figures drawn around it with probability 2 / 2**n."""


class Album:
    """The plots of a report, each with a file name of its own."""

    def __init__(self) -> None:
        self.plots: list[Plot] = []

    def name(self, wanted: str) -> str:
        """A name that no plot has yet: letters, digits and hyphens, whatever is wanted."""
        slug = re.sub("[^a-z0-9]+", "-", wanted.lower())[:40].strip("-") or "plot"
        taken = {plot.name for plot in self.plots}
        return next(name for name in chain([slug], (f"{slug}-{n}" for n in count(2))) if name not in taken)

    def keep(self, plot: Plot) -> Plot:
        """Take a plot in."""
        self.plots.append(plot)
        return plot


def throughput(section: Section, album: Album) -> list[Block]:
    """Every contest, with a plot and a table."""
    contests = [contest for contest in section.contests if contest.group != PEAKS and contest.rows]
    if not contests:
        return [Absent("Throughput", NONE)]
    rows = [row for contest in contests for row in contest.rows]
    blocks: list[Block] = [
        Words(
            "Medians, quartiles in brackets, n rounds. The variants of a contest ran in turn, round after round; each "
            "is held against the ordinary way, with the 95 % interval of a bootstrap over the rounds in brackets. "
            + _noise(rows)
        )
    ]
    for contest in contests:
        name, what = WHAT.get(contest.group, (contest.group, ""))
        source = f" (file {contest.source + 1})" if len(section.sources) > 1 else ""
        size = contest.rows[0].batch_size
        told = " ".join([*([what] if what else []), *([f"{size:,} images a batch."] if size else [])])
        blocks += [Title(name + source), *([Words(told)] if told else []), _contest(contest, name, album)]
    return blocks


def tabulated(contest: Contest, label: str, parts: Sequence[Part]) -> Table:
    """A table of a contest, with a warning beside its noisy rows where it has any, and with what was skipped."""
    if any(row.noisy for row in contest.rows):
        parts = [*parts, (Column("", "left"), lambda row: NOISY if row.noisy else "")]
    rows = [[cell(row) for _, cell in parts] for row in contest.rows]
    absent = [[one.name, NONE, *[""] * (len(parts) - 2)] for one in contest.absent]
    return Table(label, [column for column, _ in parts], [*rows, *absent])


def amount(row: Row) -> str:
    """Median and quartiles of its rate, or of its seconds where only the time matters."""
    return middle(row.rate, row.unit) if row.rate else middle(row.seconds, None)


def rounds(row: Row) -> str:
    """How many there are."""
    return str(row.seconds.n)


def _contest(contest: Contest, name: str, album: Album) -> Drawing:
    first, unit = contest.rows[0], unit_of(contest.rows[0].unit)
    parts: list[Part] = [
        (Column("variant"), lambda row: _variant(row, first.batch_size)),
        (Column(unit), amount),
        (Column("n"), rounds),
    ]
    if contest.baseline is not None:
        parts.append((Column("times baseline"), lambda row: interval(row.ratio) if row.ratio else "baseline"))
    entries = [_entry(row, is_baseline=row.name == contest.baseline) for row in contest.rows]
    plot = bars(album.name(contest.group), f"{name}, {unit}", entries)
    return Drawing(album.keep(plot), tabulated(contest, name, parts))


def _variant(row: Row, batch_size: int | None) -> str:
    """Its name, and the images of a call where they are not as many as the others'."""
    other = row.batch_size is not None and row.batch_size != batch_size
    return f"{row.name}, {row.batch_size:,} images" if other else row.name


def _entry(row: Row, *, is_baseline: bool) -> Bar:
    found = row.rate or row.seconds
    median, low, high = (scaled(value, row.unit) for value in (found.median, found.low, found.high))
    value = Quartiles(median=median, low=low, high=high, n=found.n)
    ratio = f" · {figure(row.ratio.value)}{TIMES}" if row.ratio else ""
    told = figure(value.median) + ratio + (f" {NOISY}" if row.noisy else "")
    return Bar(name=row.name, value=value, told=told, is_baseline=is_baseline, noisy=row.noisy)


def _noise(rows: Sequence[Row]) -> str:
    noisy, wide = sum(row.noisy for row in rows), f"{100 * NOISY_SPREAD:.0f} % of the median"
    told = f"A figure is noisy where the middle half of its rounds is wider than {wide}: {noisy} of {len(rows)}."
    return f"{told} {_FEW}" if any(row.seconds.n < _ENOUGH for row in rows) else told
