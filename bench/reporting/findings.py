"""All that benchmark files and runs say, as values: a report is made of these and of nothing else."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.records import BenchFile, Header, Machine
from bench.reporting.accuracy import Accuracy, LeftOut, find_accuracies
from bench.reporting.bottleneck import Bottleneck, find_bottleneck
from bench.reporting.compiling import Compiling, find_compiling
from bench.reporting.peaks import Roofline, Share, find_roofline, find_shares
from bench.reporting.throughput import GROUPS, Contest, find_contests
from cifarfast.comparable import flat
from cifarfast.runfolder import Run

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """A benchmark file."""

    path: str
    """Where it is."""
    date: str
    """When it was written, as it says."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What was measured in the same circumstances; nothing in it is divided by anything outside it."""

    sources: list[Source]
    """The files, the oldest first."""
    machine: Machine
    """On what, with which versions, of which commit."""
    profile: str
    """`quick` or `full`."""
    data: str
    """`cifar10`, `custom` or `synthetic`; `none` where nothing was read."""
    batch_size: int
    """Images of one training step."""
    bottleneck: Bottleneck
    """What holds training up."""
    contests: list[Contest]
    """Who was how fast; the peaks are the last of them."""
    compiling: Compiling
    """Whether compiling pays."""
    shares: list[Share]
    """What part of the peaks is reached."""
    roofline: Roofline | None
    """None where the peaks were not measured."""
    not_measured: list[str]
    """Groups without a figure."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The whole of a report."""

    schema: int = SCHEMA
    """Version of this layout."""
    sections: list[Section]
    """One for every machine, code, profile, data and batch size, in the order of the files."""
    accuracies: list[Accuracy]
    """One for every recipe."""
    left_out: list[LeftOut]
    """Runs that say nothing about a recipe."""


def find(files: Sequence[BenchFile], runs: Sequence[Run]) -> Findings:
    """What they say.

    Raises:
        UserError: a run is named twice.
    """
    apart: dict[Hashable, list[BenchFile]] = {}
    for file in files:
        apart.setdefault(frozenset(circumstances(file.machine, file.header).items()), []).append(file)
    accuracies, left_out = find_accuracies(runs)
    return Findings(sections=[_section(alike) for alike in apart.values()], accuracies=accuracies, left_out=left_out)


def circumstances(machine: Machine, measurement: "Header | Section") -> dict[str, Any]:
    """All that must be the same before one figure is held against another; the code, too."""
    what = {name: getattr(measurement, name) for name in ("profile", "data", "batch_size")}
    return flat(asdict(machine)) | what


def _section(files: Sequence[BenchFile]) -> Section:
    files = sorted(files, key=lambda file: file.date)
    first, contests, shares = files[0], find_contests(files), find_shares(files)
    measured = {contest.group for contest in contests if contest.rows}
    return Section(
        sources=[Source(path=str(file.path), date=file.date) for file in files],
        machine=first.machine,
        profile=first.header.profile,
        data=first.header.data,
        batch_size=first.header.batch_size,
        bottleneck=find_bottleneck(files, shares),
        contests=contests,
        compiling=find_compiling(files),
        shares=shares,
        roofline=find_roofline(files),
        not_measured=[group for group in GROUPS if group not in measured],
    )
