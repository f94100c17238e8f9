from pathlib import Path
from typing import Any

from bench.records import read_bench
from bench.reporting.blocks import Document, Listings, Tiles, Words
from bench.reporting.content import write_document
from bench.reporting.findings import find
from cifarfast.reporting.style import styled
from tests.bench.made import entry, write_bench

THIN = "\u202f"
UNDECIDED = "Neither the loader nor the step stands out as the bottleneck"
LOADER = entry("loaders-augmented", "ffcv", 300, spread=0)
STEP = entry("step", "fast", 100, spread=0, precision="fp32", flops=512e9)
PRODUCT = entry("peaks", "product-fp32", 200e9, work=1e9, unit="FLOP", spread=0)


def document(folder: Path, *files: dict[str, Any]) -> Document:
    paths = [write_bench(folder / f"{n}.json", **file) for n, file in enumerate(files)]
    with styled():
        return write_document(find([read_bench(path) for path in paths], []))


def tiles(found: Document) -> list[tuple[str, str]]:
    (block,) = (block for topic in found.topics for block in topic.blocks if isinstance(block, Tiles))
    return [(tile.title, tile.figure) for tile in block.tiles]


def test_the_lede_is_the_verdict_with_its_evidence(tmp_path: Path) -> None:
    epoch = entry("epoch", "ffcv", 1, data_wait_percent=[2.0])
    augment = entry("augment", "ours-compiled", 1e5, spread=0, bytes=512 * 15_000)
    copy = entry("peaks", "copy", 30e9, unit="bytes", spread=0)
    convolutions = entry("peaks", "convolutions-fp32", 180e9, work=1e9, unit="FLOP", spread=0)
    found = document(tmp_path, {"entries": [LOADER, STEP, PRODUCT, epoch, augment, copy, convolutions]})
    assert found.title == "The training step is the bottleneck"
    assert found.lede == (
        "The loader ffcv delivers 3.00 (3.00 to 3.00) times the images that the fastest step, fast, takes. "
        f"That step reaches 50.0{THIN}% (50.0 to 50.0) of the peak of arithmetic (product-fp32, measured beside it); "
        f"its convolutions alone, 90.0{THIN}% (90.0 to 90.0). "
        f"With ffcv training waits for data 2{THIN}% of an epoch. "
        f"The augmentation, ours-compiled, reaches 5.00{THIN}% (5.00 to 5.00) of the bandwidth of a copy."
    )
    assert tiles(found) == [
        ("Loader headroom", f"3.00{THIN}\u00d7"),
        ("Waiting for data", f"2{THIN}%"),
        ("Step, of its peak", f"50{THIN}%"),
        ("Augmentation, of its peak", f"5{THIN}%"),
    ]
    assert found.synthetic is None


def test_the_order_is_that_of_a_decision(tmp_path: Path) -> None:
    assert [topic.title for topic in document(tmp_path, {"entries": [STEP]}).topics] == [
        "The evidence",
        "Throughput",
        "Epoch time and accuracy",
        "Compiling",
        "Peaks, and what is reached of them",
        "What was skipped",
        "Where all of this is from",
    ]


def test_verdicts_without_evidence_against_the_loader_and_of_one_that_does_not_agree(tmp_path: Path) -> None:
    nothing = document(tmp_path, {"entries": []})
    assert nothing.title == "What the bottleneck is was not measured"
    assert nothing.lede == "It takes loaders-augmented and step, or epoch."
    assert {figure for _, figure in tiles(nothing)} == {"not measured"}
    slow = entry("loaders-augmented", "ffcv", 30, spread=0)
    assert document(tmp_path, {"entries": [slow, STEP]}).title == "The loader is the bottleneck"
    waiting = entry("epoch", "ffcv", 1, data_wait_percent=[90])
    assert document(tmp_path, {"entries": [LOADER, STEP, waiting]}).title == UNDECIDED


def test_a_step_whose_loader_was_not_measured_is_named(tmp_path: Path) -> None:
    found = document(tmp_path, {"entries": [STEP, PRODUCT]})
    assert found.lede.startswith(f"The fastest step, fast, reaches 50.0{THIN}%")


def test_noise_is_told_at_once(tmp_path: Path) -> None:
    wild = entry("loaders", "ffcv", 300, spread=0.4)
    assert document(tmp_path, {"entries": [LOADER, STEP, wild]}).lede.endswith(" Of 3 figures 1 is noisy.")


def test_a_single_round_decides_nothing(tmp_path: Path) -> None:
    once = [entry("loaders-augmented", "ffcv", 300, rounds=1), entry("step", "fast", 100, rounds=1)]
    found = document(tmp_path, {"entries": once})
    assert found.title == UNDECIDED
    assert found.lede.startswith("The loader ffcv delivers 3.00 times the images")
    assert tiles(found)[0] == ("Loader headroom", f"3.00{THIN}\u00d7")


def test_a_quick_look_says_so(tmp_path: Path) -> None:
    found = document(tmp_path, {"entries": [LOADER, STEP], "profile": "quick", "batch_size": 32})
    assert found.lede.endswith("This is a look, profile quick, 32 images a step: decide on a full one.")


def test_several_circumstances_are_parts_that_say_how_they_differ(tmp_path: Path) -> None:
    found = document(
        tmp_path,
        {"entries": [LOADER, STEP]},
        {"entries": [LOADER, STEP], "data": "synthetic", "torch_threads": 4},
        {"entries": [LOADER, STEP]},
    )
    assert found.title == "2 sets of benchmarks"
    assert found.lede.startswith("They differ in torch_threads (2, 4), data (cifar10, synthetic): each has a part")
    headings = [topic.title for topic in found.topics]
    assert headings[:3] == ["Epoch time and accuracy", "A: a cpu, cifar10, full", "A: The evidence"]
    assert "B: a cpu, SYNTHETIC, full" in headings
    opening = next(topic for topic in found.topics if topic.title.startswith("B: a cpu"))
    (words,) = (block for block in opening.blocks if isinstance(block, Words))
    assert words.text.startswith("The training step is the bottleneck. The loader ffcv delivers")
    assert found.synthetic is not None
    assert "the parts that say SYNTHETIC" in found.synthetic
    assert len({plot.name for plot in found.plots}) == len(found.plots) == 3 * 2


def test_where_it_is_from(tmp_path: Path) -> None:
    found = document(tmp_path, {"entries": [STEP], "data": "synthetic", "gpu": "a gpu"})
    (block,) = (block for topic in found.topics for block in topic.blocks if isinstance(block, Listings))
    measured, machine, packages = (listing.values for listing in block.listings)
    path = str(tmp_path / "0.json")
    assert measured == {
        "data": "SYNTHETIC",
        "profile": "full",
        "batch_size": 512,
        "file 1": f"{path}, 2026-01-02T03:04:05+00:00",
    }
    assert (machine["gpu"], machine["git_commit"], machine["torch_threads"]) == ("a gpu", "0" * 40, 2)
    assert packages == {"torch": "2.14.1", "ffcv": None}
    assert found.sources == [path]
    assert found.synthetic is not None
    assert found.synthetic.startswith("These images are a stand-in")
