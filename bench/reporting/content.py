"""The words of a report: a document out of findings. Call it within `style.styled()`, for it draws."""

from collections.abc import Sequence
from dataclasses import asdict

from bench.reporting import topics
from bench.reporting.blocks import Document, Listing, Listings, Tile, Tiles, Topic, Words
from bench.reporting.bottleneck import Bottleneck
from bench.reporting.contests import Album, throughput
from bench.reporting.estimate import Estimate
from bench.reporting.findings import Findings, Section, circumstances
from bench.reporting.peaks import Share
from bench.reporting.wording import NONE, TIMES, figure, interval, percent, percents
from cifarfast.comparable import differing
from cifarfast.reporting.writing import THIN

SYNTHETIC = "synthetic"

_VERDICTS = {
    "step": "The training step is the bottleneck",
    "loader": "The loader is the bottleneck",
    "undecided": "Neither the loader nor the step stands out as the bottleneck",
    "not measured": "What the bottleneck is was not measured",
}


def write_document(findings: Findings) -> Document:
    """The document: for one machine all that is known in one go, for several a part for each."""
    album = Album()
    accuracy = Topic("Epoch time and accuracy", topics.accuracy(findings.accuracies, findings.left_out))
    if len(findings.sections) == 1:
        (section,) = findings.sections
        verdict, lede = _VERDICTS[section.bottleneck.verdict], _lede(section)
        evidence, speed, *others = _section(section, "", album)
        parts = [evidence, speed, accuracy, *others]
    else:
        letters = [f"{chr(ord('A') + place % 26)}{place // 26 or ''}: " for place in range(len(findings.sections))]
        verdict = f"{len(findings.sections)} sets of benchmarks"
        differences = ", ".join(differing([circumstances(section.machine, section) for section in findings.sections]))
        lede = f"They differ in {differences}: each has a part of its own, and nothing is divided across them."
        parts = [accuracy]
        for letter, section in zip(letters, findings.sections, strict=True):
            parts += [_opening(section, letter), *_section(section, letter, album)]
    return Document(
        title=verdict,
        lede=lede,
        synthetic=_stand_in(findings.sections),
        topics=parts,
        sources=_sources(findings),
        plots=album.plots,
    )


def _lede(section: Section) -> str:
    """The evidence for the verdict, and how far to trust it."""
    found, parts = section.bottleneck, []
    headroom, waiting = found.headroom_of_loader, found.waiting_of_loader
    if headroom is not None:
        parts.append(
            f"The loader {headroom.loader} delivers {interval(headroom.ratio)} times the images that the fastest "
            f"step, {headroom.step}, takes."
        )
    if found.step is not None:
        step = "That step" if headroom is not None else f"The fastest step, {found.step.name},"
        share, peak = percents(found.step.share), found.step.peak
        alone = f"; its convolutions alone, {percents(found.convolutions.share)}" if found.convolutions else ""
        parts.append(f"{step} reaches {share} of the peak of arithmetic ({peak}, measured beside it){alone}.")
    if waiting is not None:
        parts.append(f"With {waiting.loader} training waits for data {percent(waiting.percent.median)} of an epoch.")
    if found.augmentation is not None:
        name, share = found.augmentation.name, percents(found.augmentation.share)
        parts.append(f"The augmentation, {name}, reaches {share} of the bandwidth of a copy.")
    if not parts:
        parts.append("It takes loaders-augmented and step, or epoch.")
    rows = [row for contest in section.contests for row in contest.rows]
    if noisy := sum(row.noisy for row in rows):
        parts.append(f"Of {len(rows)} figures {noisy} {'is' if noisy == 1 else 'are'} noisy.")
    if section.profile != "full":
        parts.append(
            f"This is a look, profile {section.profile}, {section.batch_size:,} images a step: decide on a full one."
        )
    return " ".join(parts)


def _section(section: Section, prefix: str, album: Album) -> list[Topic]:
    return [
        Topic(f"{prefix}The evidence", [_tiles(section.bottleneck), *topics.evidence(section.bottleneck, album)]),
        Topic(f"{prefix}Throughput", throughput(section, album)),
        Topic(f"{prefix}Compiling", topics.compiling(section.compiling)),
        Topic(f"{prefix}Peaks, and what is reached of them", topics.peaks(section, album)),
        Topic(f"{prefix}What was skipped", topics.skipped(section)),
        Topic(f"{prefix}Where all of this is from", [_provenance(section)]),
    ]


def _opening(section: Section, prefix: str) -> Topic:
    machine = section.machine.gpu or section.machine.cpu or "unknown machine"
    words = f"{_VERDICTS[section.bottleneck.verdict]}. {_lede(section)}"
    return Topic(f"{prefix}{machine}, {_data(section)}, {section.profile}", [Words(words)])


def _tiles(found: Bottleneck) -> Tiles:
    return Tiles(
        [_headroom(found), _waiting(found), _share("Step", found.step), _share("Augmentation", found.augmentation)]
    )


def _headroom(found: Bottleneck) -> Tile:
    headroom = found.headroom_of_loader
    if headroom is None:
        return Tile("Loader headroom", NONE, [])
    rates = f"{headroom.loader} {figure(headroom.loader_rate)}, step {figure(headroom.step_rate)} images/s"
    return Tile("Loader headroom", f"{figure(headroom.ratio.value)}{THIN}{TIMES}", [_within(headroom.ratio), rates])


def _waiting(found: Bottleneck) -> Tile:
    waiting = found.waiting_of_loader
    if waiting is None:
        return Tile("Waiting for data", NONE, [])
    told = f"of an epoch with {waiting.loader}, n = {waiting.percent.n}"
    return Tile("Waiting for data", percent(waiting.percent.median), [told])


def _share(what: str, share: Share | None) -> Tile:
    if share is None:
        return Tile(f"{what}, of its peak", NONE, [])
    return Tile(
        f"{what}, of its peak",
        percent(100 * share.share.value),
        [_within(share.share.map(lambda part: 100 * part)), f"{share.name}, of {share.peak}"],
    )


def _within(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "of one round: no interval"
    return f"95 % interval {figure(found.low)} to {figure(found.high)}"


def _provenance(section: Section) -> Listings:
    machine = asdict(section.machine)
    packages = machine.pop("packages")
    measured = {
        "data": _data(section),
        "profile": section.profile,
        "batch_size": section.batch_size,
        **{f"file {place}": f"{source.path}, {source.date}" for place, source in enumerate(section.sources, 1)},
    }
    return Listings(
        [
            Listing("What was measured", measured),
            Listing("Machine and code", machine),
            Listing("Packages", packages),
        ]
    )


def _sources(findings: Findings) -> list[str]:
    files = [source.path for section in findings.sections for source in section.sources]
    counted = [run for accuracy in findings.accuracies for run in accuracy.runs]
    return [*files, *counted, *(run.run for run in findings.left_out)]


def _data(section: Section) -> str:
    return section.data.upper() if section.data == SYNTHETIC else section.data


def _stand_in(sections: Sequence[Section]) -> str | None:
    if all(section.data != SYNTHETIC for section in sections):
        return None
    return (
        "These images are a stand-in, drawn by a program: the work is as much as on CIFAR-10, but nothing here was "
        "measured on the real data."
        if all(section.data == SYNTHETIC for section in sections)
        else "Some of these figures are of images that a program drew: the parts that say SYNTHETIC."
    )
