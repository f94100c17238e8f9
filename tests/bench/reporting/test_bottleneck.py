from pathlib import Path
from typing import Any

import pytest

from bench.records import read_bench
from bench.reporting.bottleneck import Bottleneck, Verdict, find_bottleneck, judge
from bench.reporting.estimate import Estimate
from bench.reporting.peaks import find_shares
from bench.statistics import quartiles
from tests.bench.made import entry, everything, write_bench


def bottleneck(folder: Path, entries: list[dict[str, Any]]) -> Bottleneck:
    files = [read_bench(write_bench(folder / "a.json", entries))]
    return find_bottleneck(files, find_shares(files))


def headroom(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("found", "waiting", "verdict"),
    [
        (headroom(1.01, 3), None, "step"),
        (headroom(0.5, 0.99), None, "loader"),
        (headroom(0.9, 1.1), None, "undecided"),
        (None, [0.0, 10.0, 80.0], "step"),
        (None, [49.0, 50.0, 51.0], "loader"),
        (None, [20.0, 30.0, 40.0], "undecided"),
        (headroom(2, 3), [1.0], "step"),
        (headroom(0.5, 0.6), [60.0], "loader"),
        (headroom(2, 3), [60.0], "undecided"),
        (headroom(0.5, 0.6), [1.0], "undecided"),
        (headroom(0.9, 1.1), [1.0], "undecided"),
        (Estimate(value=5, low=None, high=None), None, "undecided"),
        (None, None, "not measured"),
    ],
)
def test_the_verdict(found: Estimate | None, waiting: list[float] | None, verdict: Verdict) -> None:
    assert judge(found, quartiles(waiting) if waiting else None) == verdict


def test_headroom_is_the_loader_over_the_fastest_step(tmp_path: Path) -> None:
    found = bottleneck(
        tmp_path,
        [
            entry("loaders", "ffcv", 9e9),
            entry("loaders-augmented", "torchvision-2", 150),
            entry("loaders-augmented", "ffcv", 600),
            entry("step", "slow", 100),
            entry("step", "fast", 300),
        ],
    )
    assert (found.verdict, found.loader) == ("step", "ffcv")
    torchvision, ffcv = found.headroom
    assert (ffcv.loader, ffcv.step) == ("ffcv", "fast")
    assert ffcv.ratio.value == pytest.approx(2.0)
    assert not ffcv.ratio.above(1.999)
    assert not ffcv.ratio.below(2.001)
    assert torchvision.ratio.value == pytest.approx(0.5)
    assert found.headroom_of_loader is ffcv
    assert (found.step, found.convolutions, found.augmentation, found.waiting) == (None, None, None, [])


def test_the_verdict_is_about_the_loader_that_training_would_choose(tmp_path: Path) -> None:
    slow = [
        entry("loaders-augmented", "torchvision-0", 50),
        entry("loaders-augmented", "resident", 80),
        entry("step", "a", 100),
    ]
    assert (bottleneck(tmp_path, slow).loader, bottleneck(tmp_path, slow).verdict) == ("resident", "loader")


def test_waiting_alone_is_evidence_too(tmp_path: Path) -> None:
    found = bottleneck(tmp_path, [entry("epoch", "ffcv", 100, data_wait_percent=[70, 60, 80])])
    assert (found.verdict, found.loader) == ("loader", "ffcv")
    assert found.waiting_of_loader is not None
    assert (found.waiting_of_loader.percent.median, found.waiting_of_loader.percent.n) == (70.0, 3)
    strange = bottleneck(tmp_path, [entry("epoch", "ffcv", 100, data_wait_percent="much")])
    assert (strange.verdict, strange.loader, strange.waiting) == ("not measured", None, [])


def test_all_the_evidence(tmp_path: Path) -> None:
    found = bottleneck(tmp_path, everything())
    assert found.verdict == "step"
    assert found.step is not None
    assert found.convolutions is not None
    assert found.augmentation is not None
    assert (found.step.name, found.augmentation.name) == ("bf16-channels-last-compiled", "ours-compiled")
    assert found.convolutions.name == "convolutions-bf16"
    assert [one.loader for one in found.waiting] == ["ffcv", "resident", "torchvision-0", "torchvision-2"]


def test_nothing_measured(tmp_path: Path) -> None:
    found = bottleneck(tmp_path, [])
    assert (found.verdict, found.headroom, found.waiting) == ("not measured", [], [])
    assert bottleneck(tmp_path, [entry("loaders-augmented", "ffcv", 1)]).headroom == []
