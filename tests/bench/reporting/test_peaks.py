from pathlib import Path
from typing import Any

import pytest

from bench.records import BenchFile, read_bench
from bench.reporting.peaks import find_roofline, find_shares
from bench.reporting.traffic import convolution_bytes, step_bytes
from tests.bench.made import FLOPS, entry, everything, write_bench

PEAKS = [
    entry("peaks", "product-fp32", 100e9, work=1e10, unit="FLOP"),
    entry("peaks", "convolutions-fp32", 90e9, work=8 * FLOPS, unit="FLOP", batch_size=8),
    entry("peaks", "copy", 50e9, work=1e9, unit="bytes"),
]
STEP = entry("step", "fp32-contiguous-eager", 8 * 70e9 / (8 * FLOPS), work=8, precision="fp32", flops=8 * FLOPS)
STEP["extra_info"]["facts"]["batch_size"] = 8
AUGMENT = entry("augment", "ours-compiled", 1e5, work=512, bytes=512 * 15_360, flops=512 * 9_216)


def files(folder: Path, entries: list[dict[str, Any]]) -> list[BenchFile]:
    return [read_bench(write_bench(folder / "a.json", entries))]


def test_a_share_is_what_is_done_over_what_can_be_done_in_that_precision(tmp_path: Path) -> None:
    shares = {share.name: share for share in find_shares(files(tmp_path, [*PEAKS, STEP, AUGMENT]))}
    convolutions, step, augment = shares.values()
    assert (convolutions.name, convolutions.peak, convolutions.unit) == ("convolutions-fp32", "product-fp32", "FLOP")
    assert convolutions.share.value == pytest.approx(0.9)
    assert step.peak == "product-fp32"
    assert step.share.value == pytest.approx(0.7)
    assert step.per_second == pytest.approx(70e9, rel=0.01)
    assert not step.share.above(0.699)  # two contests: no pairs
    assert not step.share.below(0.701)
    assert (augment.peak, augment.unit) == ("copy", "bytes")
    assert augment.share.value == pytest.approx(1e5 * 15_360 / 50e9)


def test_without_a_peak_or_its_own_facts_nothing_is_a_share(tmp_path: Path) -> None:
    bf16 = entry("step", "bf16", 100, precision="bf16", flops=1e9)
    strange = entry("step", "strange", 100, precision=["fp32"], flops="many")
    augment = entry("augment", "ours-eager", 100, bytes=None)
    assert [share.name for share in find_shares(files(tmp_path, [*PEAKS, bf16, strange, augment]))] == [
        "convolutions-fp32"
    ]
    assert find_shares(files(tmp_path, [STEP, AUGMENT])) == []
    misnamed = entry("peaks", "product-fp32", 1e9, unit="bytes")
    assert find_shares(files(tmp_path, [misnamed, STEP])) == []
    assert find_roofline(files(tmp_path, [misnamed, PEAKS[2], STEP])) is None


def test_the_roof_is_the_lower_one(tmp_path: Path) -> None:
    roofline = find_roofline(files(tmp_path, [*PEAKS, STEP, AUGMENT]))
    assert roofline is not None
    assert roofline.flops_per_second == {"fp32": pytest.approx(100e9, rel=0.01)}
    convolutions, step, augment = roofline.points
    assert convolutions.intensity == 8 * FLOPS / convolution_bytes(8, "fp32")
    assert step.intensity == 8 * FLOPS / step_bytes(8, "fp32")
    assert step.flops_per_second == pytest.approx(70e9, rel=0.01)
    assert step.reachable == roofline.flops_per_second["fp32"]
    assert augment.intensity == 0.6
    assert augment.reachable == 0.6 * roofline.bytes_per_second
    assert augment.flops_per_second == pytest.approx(1e5 * 9_216, rel=0.01)


def test_the_roofline_has_the_fastest_step_of_each_precision_and_our_augmentation(tmp_path: Path) -> None:
    roofline = find_roofline(files(tmp_path, everything()))
    assert roofline is not None
    assert [point.name for point in roofline.points] == [
        "convolutions-fp32",
        "convolutions-bf16",
        "fp32-channels-last-eager",
        "bf16-channels-last-compiled",
        "ours-eager",
        "ours-compiled",
    ]


def test_without_roofs_there_is_no_roofline_and_without_facts_no_point(tmp_path: Path) -> None:
    assert find_roofline(files(tmp_path, [STEP, AUGMENT])) is None
    assert find_roofline(files(tmp_path, [PEAKS[0], STEP])) is None
    assert find_roofline(files(tmp_path, [PEAKS[2], STEP])) is None
    unknown = [
        entry("step", "a", 1, precision="fp32", flops=1e9, batch_size=0.2),
        entry("step", "b", 1, precision="fp8", flops=1e9, batch_size=8),
        entry("augment", "ours-eager", 1, bytes=1),
        entry("augment", "theirs", 1, bytes=1, flops=1),
    ]
    roofline = find_roofline(files(tmp_path, [PEAKS[0], PEAKS[2], *unknown]))
    assert roofline is not None
    assert roofline.points == []
