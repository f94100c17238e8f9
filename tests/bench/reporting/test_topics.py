from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.records import read_bench
from bench.reporting import topics
from bench.reporting.blocks import Absent, Block, Drawing, Table, Words
from bench.reporting.contests import Album
from bench.reporting.findings import Section, find
from cifarfast.reporting.style import styled
from tests.bench.made import entry, everything, whole_run, write_bench

THIN = "\u202f"


def section(folder: Path, entries: list[dict[str, Any]], **header: Any) -> Section:
    (found,) = find([read_bench(write_bench(folder / "a.json", entries, **header))], []).sections
    return found


def tables(blocks: list[Block]) -> list[Table]:
    return [
        block.table if isinstance(block, Drawing) else block for block in blocks if isinstance(block, Table | Drawing)
    ]


def absent(blocks: list[Block]) -> list[str]:
    return [f"{block.what}: {block.reason}" for block in blocks if isinstance(block, Absent)]


def test_the_evidence_has_every_loader(tmp_path: Path) -> None:
    entries = [
        entry("loaders-augmented", "ffcv", 300, spread=0),
        entry("step", "a", 100, spread=0),
        entry("epoch", "resident", 1, data_wait_percent=[1, 2, 3]),
    ]
    with styled():
        blocks = topics.evidence(section(tmp_path, entries).bottleneck, Album())
    (table,) = tables(blocks)
    assert table.rows == [
        ["ffcv", "300", "3.00 (3.00 to 3.00)", "not measured", "0"],
        ["resident", "not measured", "not measured", "2.00 (1.50 to 2.50)", "3"],
    ]
    (drawing,) = (block for block in blocks if isinstance(block, Drawing))
    assert drawing.plot.alt == f"Share of an epoch that training waits for data, %, medians: resident 2{THIN}%."


def test_evidence_without_waiting_or_without_anything(tmp_path: Path) -> None:
    entries = [entry("loaders-augmented", "ffcv", 300), entry("step", "a", 100)]
    blocks = topics.evidence(section(tmp_path, entries).bottleneck, Album())
    assert [type(block) for block in blocks] == [Words, Table]
    blocks = topics.evidence(section(tmp_path, []).bottleneck, Album())
    assert absent(blocks) == [
        "Loader headroom and waiting: not measured: they take loaders-augmented and step, or epoch"
    ]


NOT_RUN = [
    [recipe, "not measured", "0", "not measured", "", f"{target}{THIN}%", ""]
    for recipe, target in (
        ("annealed, 20 epochs", "91.42"),
        ("reference-tuned, 20 epochs", "94.50"),
        ("speedrun-91, 5 epochs, selective", "91.42"),
        ("speedrun-94, 9 epochs, selective", "94.00"),
    )
]


def test_accuracy_beside_epoch_time() -> None:
    runs = [whole_run(Path(f"run{n}"), 0.91 + n / 100, seed=n, epoch_seconds=200 + n) for n in range(3)]
    findings = find([], [*runs, whole_run(Path("short"), 0.5, epochs=1)])
    table, left_out = tables(topics.accuracy(findings.accuracies, findings.left_out))
    row, *others = table.rows
    assert others == NOT_RUN
    assert row[:-1] == [
        "reference, 20 epochs",
        "201 (200 to 202)",
        "3",
        f"92.00{THIN}%",
        "1.00 (91.00 to 93.00)",
        f"91.42{THIN}% met, by 2 of 3",
    ]
    assert row[-1] == "a cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1, channels-last, loader resident, n = 3"
    assert left_out.rows == [["short", "not reference as it is: it differs in epochs (20, 1)"]]


def test_accuracy_of_one_run_and_of_none() -> None:
    findings = find([], [whole_run(Path("a"), 0.9)])
    row, *_ = tables(topics.accuracy(findings.accuracies, []))[0].rows
    assert row[1:-1] == ["200", "1", f"90.00{THIN}%", "", f"91.42{THIN}% not met, by 0 of 1"]
    row, *others = tables(topics.accuracy(find([], []).accuracies, []))[0].rows
    assert others == NOT_RUN
    assert row == ["reference, 20 epochs", "not measured", "0", "not measured", "", f"91.42{THIN}%", ""]


def test_epochs_on_several_machines_are_rows_of_their_own_and_seeds_are_counted() -> None:
    run, other = whole_run(Path("a"), 0.92), whole_run(Path("b"), 0.92, epoch_seconds=20)
    assert other.summary is not None
    fast = replace(other.summary, fingerprint=replace(other.summary.fingerprint, cpu="another"))
    first, second, *_ = tables(topics.accuracy(find([], [run, replace(other, summary=fast)]).accuracies, []))[0].rows
    assert (first[1], second[1]) == ("200", "20.0")
    assert first[2] == "2 (1 seed)"
    assert [*second[:1], *second[2:-1]] == [""] * 5
    assert (first[-1][:5], second[-1][:7]) == ("a cpu", "another")


def step(mode: str, rate: float, precision: str = "fp32", **facts: Any) -> dict[str, Any]:
    return entry("step", f"{precision}-{mode}", rate, spread=0, precision=precision, mode=mode, **facts)


def test_compiling(tmp_path: Path) -> None:
    production: dict[str, Any] = {"layout": "channels-last"}
    entries = [
        step("eager", 100, **production),
        step("compiled", 125, compile_seconds=50, compile_cache="warm", **production),
        step("eager", 100, "bf16", **production),
        step("compiled", 90, "bf16", compile_seconds=50, **production),
        step("eager", 100, "fp16", **production),
        step("compiled", 200, "fp16", **production),
        entry("start-up", "eager", 1 / 10, work=1, unit=None, spread=0),
        entry("start-up", "compiled-cold", 1 / 60, work=1, unit=None, spread=0),
        entry("start-up", "compiled-warm", 1 / 9, work=1, unit=None, spread=0),
    ]
    gains, start_up = tables(topics.compiling(section(tmp_path, entries).compiling))
    assert gains.rows == [
        [
            "fp32-channels-last",
            f"500{THIN}s",
            "1.25 (1.25 to 1.25)",
            "100 (100 to 100)",
            f"50.0{THIN}s",
            "warm",
            "0.500 (0.500 to 0.500) epochs",
        ],
        [
            "bf16-channels-last",
            f"500{THIN}s",
            "0.900 (0.900 to 0.900)",
            "-55.6 (-55.6 to -55.6)",
            f"50.0{THIN}s",
            "",
            "never: it is slower",
        ],
        [
            "fp16-channels-last",
            f"500{THIN}s",
            "2.00 (2.00 to 2.00)",
            "250 (250 to 250)",
            "not measured",
            "",
            "not measured",
        ],
    ]
    assert start_up.rows == [
        ["eager", "10.0 (10.0 to 10.0)", "7", "", ""],
        ["compiled-cold", "60.0 (60.0 to 60.0)", "7", f"+50.0{THIN}s", "0.500 (0.500 to 0.500) epochs"],
        ["compiled-warm", "9.00 (9.00 to 9.00)", "7", f"-1.00{THIN}s", "at once"],
    ]


def test_compiling_without_a_gain_that_is_shown(tmp_path: Path) -> None:
    entries = [step("eager", 100, layout="a"), step("compiled", 100, layout="a", compile_seconds=1)]
    (gains,) = tables(topics.compiling(section(tmp_path, entries).compiling))
    assert gains.rows[0][-1] == "no gain is shown"


def test_compiling_not_measured(tmp_path: Path) -> None:
    assert absent(topics.compiling(section(tmp_path, []).compiling)) == [
        "Gain: not measured: it takes the step eager and compiled in one precision and layout",
        "Cold and warm start-up: not measured",
    ]


def test_peaks(tmp_path: Path) -> None:
    with styled():
        blocks = topics.peaks(section(tmp_path, everything()), Album())
    peaks, shares, roofline = tables(blocks)
    assert peaks.rows[0] == ["product-fp32", "170 (169 to 171) GFLOP/s", "7"]
    assert peaks.rows[-1][:2] == ["copy", "60.0 (59.7 to 60.3) GB/s"]
    assert shares.rows[0][:3] == ["convolutions-fp32", "165 GFLOP/s", "product-fp32"]
    assert shares.rows[2][0] == "step fp32-contiguous-eager"
    assert [row[0][:2] for row in roofline.rows] == ["A:", "B:", "C:", "D:", "E:", "F:"]


def test_peaks_in_part_and_not_at_all(tmp_path: Path) -> None:
    copy = section(tmp_path, [entry("peaks", "copy", 60e9, unit="bytes", spread=0.4)])
    blocks = topics.peaks(copy, Album())
    assert tables(blocks)[0].rows[0][-1] == "noisy"
    assert absent(blocks) == ["Roofline: not measured: it takes the copy and a matrix product"]
    assert absent(topics.peaks(section(tmp_path, []), Album())) == [
        "Peaks of this machine: not measured, and so no share of them is told"
    ]


def test_what_was_skipped_has_its_reason(tmp_path: Path) -> None:
    skipped = [
        {"group": group, "name": name, "reason": reason}
        for group, name, reason in (
            ("step", "fp16-a", "fp16 is for CUDA"),
            ("step", "bf16", "too slow"),
            ("step", "fp16-b", "fp16 is for CUDA"),
            ("forward", "fp16-a", "fp16 is for CUDA"),
            ("forward", "fp16-b", "fp16 is for CUDA"),
            ("evaluate", "fp16-a", "fp16 is for CUDA"),
        )
    ]
    blocks = topics.skipped(section(tmp_path, everything(), skipped=skipped))
    assert tables(blocks)[0].rows == [
        ["step, forward", "fp16-a, fp16-b", "fp16 is for CUDA"],
        ["step", "bf16", "too slow"],
        ["evaluate", "fp16-a", "fp16 is for CUDA"],
    ]
    assert absent(blocks) == ["Not measured at all: convert"]
    whole = [*everything(), entry("convert", "ffcv", 1)]
    assert topics.skipped(section(tmp_path, whole)) == [Words("Nothing was skipped.")]
