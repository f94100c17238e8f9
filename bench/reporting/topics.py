"""The other parts of a report, each a list of blocks out of findings. Call them within `style.styled()`: they draw."""

from collections.abc import Sequence

from bench.reporting.accuracy import Accuracy, EpochTime, LeftOut
from bench.reporting.blocks import Absent, Block, Column, Drawing, Table, Words
from bench.reporting.bottleneck import Bottleneck, Headroom, Waiting
from bench.reporting.compiling import EPOCH_IMAGES, PRODUCTION, Compiling, Gain, StartUp
from bench.reporting.contests import Album, Part, amount, rounds, tabulated
from bench.reporting.estimate import Estimate
from bench.reporting.findings import Section
from bench.reporting.peaks import Roofline, Share
from bench.reporting.plots import Bar, bars, lettered, roofline
from bench.reporting.throughput import PEAKS
from bench.reporting.wording import NONE, figure, interval, middle, percent, percents, scaled, unit_of
from bench.statistics import Quartiles
from cifarfast.reporting.style import Plot
from cifarfast.reporting.writing import THIN, seconds
from cifarfast.reporting.writing import percent as share_of_one

_PEAK: list[Part] = [
    (Column("peak"), lambda row: row.name),
    (Column("a second"), lambda row: f"{amount(row)} {unit_of(row.unit)}"),
    (Column("n"), rounds),
]


def evidence(found: Bottleneck, album: Album) -> list[Block]:
    """What the verdict is made of, for every loader."""
    loaders = list(dict.fromkeys([*(one.loader for one in found.headroom), *(one.loader for one in found.waiting)]))
    if not loaders:
        return [Absent("Loader headroom and waiting", f"{NONE}: they take loaders-augmented and step, or epoch")]
    headroom, waiting = ({one.loader: one for one in found.headroom}, {one.loader: one for one in found.waiting})
    columns = [Column(title) for title in ("loader", "images/s", "times the step", "waiting, %", "n")]
    rows = [[loader, *_loader(headroom.get(loader), waiting.get(loader))] for loader in loaders]
    table = Table("Loaders against the step", columns, rows)
    shown = Drawing(album.keep(_waiting(found.waiting, album)), table) if found.waiting else table
    return [Words(_headroom(found.headroom)), shown]


def accuracy(found: Sequence[Accuracy], left_out: Sequence[LeftOut]) -> list[Block]:
    """Epoch time beside the accuracy, a row or more for every recipe."""
    titles = ("recipe", "epoch, seconds", "runs", "test accuracy", "spread", "target")
    columns = [*map(Column, titles), Column("on", "wide")]
    blocks: list[Block] = [
        Words(
            "Whole runs of a recipe as it is on the real CIFAR-10. Accuracy is the mean after the last epoch, "
            "with the test-time augmentation that is named beside the recipe, if any; its spread is the standard "
            "deviation, lowest and highest in brackets."
        ),
        Table("Epoch time and accuracy of the recipes", columns, [row for one in found for row in _accuracy(one)]),
    ]
    if left_out:
        rows = [[one.run, one.reason] for one in left_out]
        table = Table("Runs that do not count", [Column("run that does not count"), Column("why", "wide")], rows)
        blocks.append(table)
    return blocks


def compiling(found: Compiling) -> list[Block]:
    """What compiling costs and gains."""
    blocks: list[Block] = []
    if found.gains:
        columns = [
            Column("step"),
            Column("eager epoch"),
            Column("compiled, times eager"),
            Column("gain an epoch, seconds"),
            Column("compiling"),
            Column("cache", "left"),
            Column("pays after", "left"),
        ]
        words = (
            f"An epoch is {EPOCH_IMAGES:,} images at the median rate of the step alone. The intervals of the gain and "
            "of the epochs after which it has paid for compiling are that of the ratio."
        )
        blocks += [Words(words), Table("Cost and gain of compiling", columns, [_gain(gain) for gain in found.gains])]
    else:
        blocks.append(Absent("Gain", f"{NONE}: it takes the step eager and compiled in one precision and layout"))
    if found.start_up:
        rows = [_start_up(one, found.production) for one in found.start_up]
        columns = [Column(title) for title in ("start-up", "seconds to the first step", "n", "more than eager")]
        columns.append(Column("pays after", "left"))
        words = (
            "What a user waits for, with a cold compile cache and with a warm one, and when the gain of "
            f"{'-'.join(PRODUCTION)}, which training runs unless it is told otherwise, has made up for it."
        )
        blocks += [Words(words), Table("Start-up, cold and warm", columns, rows)]
    else:
        blocks.append(Absent("Cold and warm start-up", NONE))
    return blocks


def peaks(section: Section, album: Album) -> list[Block]:
    """What the machine can do, and what share of it is reached."""
    contests = [contest for contest in section.contests if contest.group == PEAKS and contest.rows]
    if not contests:
        return [Absent("Peaks of this machine", f"{NONE}, and so no share of them is told")]
    words = (
        "Measured beside everything else: a product of two square matrices and the network's own convolutions in each "
        "precision, and a large copy, read and written bytes both counted. Shares are of two contests, one after the "
        "other, with 95 % intervals."
    )
    blocks: list[Block] = [Words(words), *(tabulated(one, "Peaks of the machine", _PEAK) for one in contests)]
    if section.shares:
        columns = [Column("work"), Column("reaches"), Column("of"), Column("share")]
        rows = [_share(share) for share in section.shares]
        blocks.append(Table("Shares of the peaks", columns, rows))
    if section.roofline is None:
        blocks.append(Absent("Roofline", f"{NONE}: it takes the copy and a matrix product"))
    else:
        blocks.append(_roofline(section.roofline, album))
    return blocks


def skipped(section: Section) -> list[Block]:
    """What there is no figure of."""
    variants: dict[tuple[str, str], list[str]] = {}
    for contest in section.contests:
        for one in contest.absent:
            variants.setdefault((contest.group, one.reason), []).append(one.name)
    contests: dict[tuple[str, str], list[str]] = {}
    for (group, reason), names in variants.items():
        contests.setdefault((", ".join(names), reason), []).append(group)
    rows = [[", ".join(groups), names, reason] for (names, reason), groups in contests.items()]
    blocks: list[Block] = []
    if rows:
        columns = [Column("contests"), Column("variants", "wide"), Column("why", "wide")]
        blocks.append(Table("What was skipped", columns, rows))
    if section.not_measured:
        blocks.append(Absent("Not measured at all", ", ".join(section.not_measured)))
    return blocks or [Words("Nothing was skipped.")]


def _loader(headroom: Headroom | None, waiting: Waiting | None) -> list[str]:
    against = [figure(headroom.loader_rate), interval(headroom.ratio)] if headroom else [NONE, NONE]
    return [*against, *([_percents(waiting.percent), str(waiting.percent.n)] if waiting else [NONE, "0"])]


def _percents(found: Quartiles) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def _headroom(found: Sequence[Headroom]) -> str:
    waiting = "Waiting is what production's own stopwatch says of whole epochs, n of them."
    if not found:
        return f"Headroom takes loaders-augmented and step. {waiting}"
    return (
        f"Headroom is the loader's images/s, augmentation included, over those of the fastest step, {found[0].step} "
        f"with {figure(found[0].step_rate)}. Two contests, one after the other; below 1 the loader is slower. {waiting}"
    )


def _waiting(found: Sequence[Waiting], album: Album) -> Plot:
    entries = [Bar(name=one.loader, value=one.percent, told=percent(one.percent.median)) for one in found]
    end = 100.0 if max(entry.value.high for entry in entries) > 10 else 10.0
    return bars(album.name("waiting"), "Share of an epoch that training waits for data, %", entries, end=end)


def _accuracy(one: Accuracy) -> list[list[str]]:
    tta = "" if one.tta == "none" else f", {one.tta}"
    recipe, target = f"{one.recipe}, {one.epochs} epochs{tta}", share_of_one(one.target)
    if one.mean is None or one.low is None or one.high is None:
        return [[recipe, NONE, "0", NONE, "", target, ""]]
    runs = str(one.n) if one.seeds == one.n else f"{one.n} ({one.seeds} seed{'s' if one.seeds > 1 else ''})"
    spread = "" if one.deviation is None else f"{100 * one.deviation:.2f} ({100 * one.low:.2f} to {100 * one.high:.2f})"
    met = f"{target} {'met' if one.mean_meets_target else 'not met'}, by {one.met} of {one.n}"
    first, *others = one.epoch_times
    told = [recipe, "", runs, share_of_one(one.mean), spread, met, ""]
    rows = [told, *([""] * len(told) for _ in others)]
    for row, time in zip(rows, (first, *others), strict=True):
        row[1], row[-1] = _epoch_seconds(time), f"{time.machine}, n = {time.n}"
    return rows


def _epoch_seconds(time: EpochTime) -> str:
    range_ = f" ({figure(time.low)} to {figure(time.high)})" if time.n > 1 else ""
    return figure(time.seconds) + range_


def _gain(gain: Gain) -> list[str]:
    return [
        f"{gain.precision}-{gain.layout}",
        f"{figure(gain.epoch_seconds)}{THIN}s",
        interval(gain.ratio),
        interval(gain.gain_seconds),
        NONE if gain.compile_seconds is None else seconds(gain.compile_seconds),
        gain.cache or "",
        _pays(gain, gain.pays_after),
    ]


def _start_up(one: StartUp, gain: Gain | None) -> list[str]:
    cells = [one.name, middle(one.seconds, None), str(one.seconds.n), _signed(one.extra_seconds)]
    if one.extra_seconds is None:
        return [*cells, ""]
    return [*cells, "at once" if one.extra_seconds <= 0 else _pays(gain, one.pays_after)]


def _pays(gain: Gain | None, after: Estimate | None) -> str:
    if after is not None:
        return f"{interval(after)} epochs"
    if gain is None or gain.verdict == "pays":
        return NONE
    return "never: it is slower" if gain.verdict == "slower" else "no gain is shown"


def _share(share: Share) -> list[str]:
    reached = f"{figure(scaled(share.per_second, share.unit))} {unit_of(share.unit)}"
    return [share.work, reached, share.peak, percents(share.share)]


def _roofline(found: Roofline, album: Album) -> Block:
    plot = album.keep(roofline(album.name("roofline"), found))
    rows = [
        [
            f"{letter}: {point.work}",
            figure(point.intensity),
            figure(point.flops_per_second / 1e9),
            percent(100 * point.flops_per_second / point.reachable),
        ]
        for letter, point in lettered(found.points)
    ]
    columns = ("work", "FLOP a byte", "GFLOP/s", "of its roof")
    return Drawing(plot, Table("Work in the roofline", [Column(title) for title in columns], rows))


def _signed(value: float | None) -> str:
    return "" if value is None else f"{'+' if value >= 0 else '-'}{seconds(abs(value))}"
