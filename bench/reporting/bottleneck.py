"""What holds training up: the loader or the step, and how much of the machine the step leaves unused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.records import BenchFile, Measured
from bench.reporting.estimate import Estimate, compared
from bench.reporting.facts import shares
from bench.reporting.peaks import Share
from bench.reporting.throughput import PEAKS, fastest, last_measured
from bench.statistics import Quartiles, quartiles

PREFERRED = ("ffcv", "resident", "torchvision-2", "torchvision-0")
"""The loaders as training chooses among them: the first that there is."""
LITTLE_WAITING = 10.0
"""Per cent of an epoch up to which waiting for data is called little."""
MOSTLY_WAITING = 50.0
"""Per cent of an epoch from which it is called most of it."""

Verdict = Literal["step", "loader", "undecided", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """How many times as many images a loader delivers, augmented, as the fastest step takes."""

    loader: str
    """The loader."""
    loader_rate: float
    """Images a second, the median."""
    step: str
    """The fastest step."""
    step_rate: float
    """Images a second, the median."""
    ratio: Estimate
    """The one over the other, with its 95 % interval; of two contests, so the rounds are not pairs."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What share of an epoch training waits for data, one figure an epoch."""

    loader: str
    """The loader."""
    percent: Quartiles
    """Per cent of the epoch."""


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The verdict and its evidence."""

    verdict: Verdict
    """`undecided` where the evidence is not clear, or does not agree."""
    loader: str | None
    """The loader that the verdict is about: the first of `PREFERRED` of which something is known."""
    headroom: list[Headroom]
    """For every loader."""
    waiting: list[Waiting]
    """For every loader."""
    step: Share | None
    """What the fastest step reaches of the matrix product in its precision."""
    convolutions: Share | None
    """What the network's convolutions alone, in the precision of that step, reach of it."""
    augmentation: Share | None
    """What the fastest augmentation of ours reaches of the copy."""

    @property
    def headroom_of_loader(self) -> Headroom | None:
        """The headroom that the verdict is made of."""
        return next((one for one in self.headroom if one.loader == self.loader), None)

    @property
    def waiting_of_loader(self) -> Waiting | None:
        """The waiting that the verdict is made of."""
        return next((one for one in self.waiting if one.loader == self.loader), None)


def find_bottleneck(files: Sequence[BenchFile], reached: Sequence[Share]) -> Bottleneck:
    """The verdict on a machine.

    Args:
        files: of that machine alone.
        reached: what `find_shares` says of them.
    """
    step = fastest(last_measured(files, "step"))
    headroom = [_headroom(one, step) for one in last_measured(files, "loaders-augmented")] if step else []
    waiting = [one for one in map(_waiting, last_measured(files, "epoch")) if one is not None]
    known = {one.loader for one in headroom} | {one.loader for one in waiting}
    loader = next((name for name in PREFERRED if name in known), None)
    ours = [share for share in reached if share.group == "augment" and share.name.startswith("ours")]
    of_step = next((share for share in reached if step and (share.group, share.name) == ("step", step.name)), None)
    return Bottleneck(
        verdict=judge(
            next((one.ratio for one in headroom if one.loader == loader), None),
            next((one.percent for one in waiting if one.loader == loader), None),
        ),
        loader=loader,
        headroom=headroom,
        waiting=waiting,
        step=of_step,
        convolutions=next((s for s in reached if of_step and (s.group, s.peak) == (PEAKS, of_step.peak)), None),
        augmentation=max(ours, key=lambda share: share.share.value, default=None),
    )


def judge(headroom: Estimate | None, waiting: Quartiles | None) -> Verdict:
    """Step or loader: what each of the two pieces of evidence says, if they do not contradict one another."""
    said = set()
    if headroom is not None:
        said.add("step" if headroom.above(1) else "loader" if headroom.below(1) else "undecided")
    if waiting is not None:
        little, mostly = waiting.median <= LITTLE_WAITING, waiting.median >= MOSTLY_WAITING
        said.add("step" if little else "loader" if mostly else "undecided")
    if not said:
        return "not measured"
    if said == {"step"}:
        return "step"
    return "loader" if said == {"loader"} else "undecided"


def _headroom(loader: Measured, step: Measured) -> Headroom:
    return Headroom(
        loader=loader.name,
        loader_rate=loader.rate.median,
        step=step.name,
        step_rate=step.rate.median,
        ratio=compared(loader.unit_seconds, step.unit_seconds, paired=False),
    )


def _waiting(one: Measured) -> Waiting | None:
    percents = shares(one.extra.facts, "data_wait_percent")
    return Waiting(loader=one.name, percent=quartiles(percents)) if percents else None
