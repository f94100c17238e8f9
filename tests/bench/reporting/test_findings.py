import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.records import read_bench
from bench.reporting.findings import Findings, find
from bench.reporting.throughput import GROUPS
from tests.bench.made import entry, everything, whole_run, write_bench

STEP = [entry("step", "a", 100, baseline="a")]
AUGMENT = [entry("loaders-augmented", "ffcv", 300)]

FACTS = ("bytes", "flops", "precision", "layout", "mode", "batch_size", "compile_seconds", "compile_cache")
LIKELY = st.sampled_from(["fp32", "bf16", "eager", "compiled", "channels-last", 0, -1, 1e-300, 1e300, 8, 0.5])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | LIKELY,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def findings(folder: Path, *files: dict[str, Any]) -> Findings:
    paths = [write_bench(folder / f"{place}.json", **file) for place, file in enumerate(files)]
    return find([read_bench(path) for path in paths], [])


def test_files_from_the_same_circumstances_are_one_section_in_the_order_of_their_dates(tmp_path: Path) -> None:
    found = findings(tmp_path, {"entries": AUGMENT, "date": "2026-01-03"}, {"entries": STEP, "date": "2026-01-02"})
    (section,) = found.sections
    assert [(Path(source.path).name, source.date) for source in section.sources] == [
        ("1.json", "2026-01-02"),
        ("0.json", "2026-01-03"),
    ]
    assert section.bottleneck.headroom[0].ratio.value == pytest.approx(3)
    assert [(contest.group, contest.source) for contest in section.contests] == [("loaders-augmented", 1), ("step", 0)]
    assert section.not_measured == [group for group in GROUPS if group not in ("loaders-augmented", "step")]


@pytest.mark.parametrize(
    "other",
    [
        {"cpu": "another"},
        {"torch_threads": 1},
        {"git_commit": "1" * 40},
        {"packages": {"torch": "2.15.0", "ffcv": None}},
        {"data": "synthetic"},
        {"profile": "quick"},
        {"batch_size": 32},
    ],
)
def test_nothing_is_divided_across_other_circumstances(tmp_path: Path, other: dict[str, Any]) -> None:
    found = findings(tmp_path, {"entries": AUGMENT}, {"entries": STEP, **other})
    assert [section.bottleneck.verdict for section in found.sections] == ["not measured"] * 2
    assert [section.bottleneck.headroom for section in found.sections] == [[], []]


def test_all_of_it(tmp_path: Path) -> None:
    file = read_bench(write_bench(tmp_path / "a.json", everything()))
    found = find([file], [whole_run(tmp_path / "run", 0.92)])
    (section,) = found.sections
    assert (section.machine, section.profile, section.data, section.batch_size) == (
        file.machine,
        "full",
        "cifar10",
        512,
    )
    assert section.not_measured == ["convert"]
    assert len(section.shares) == 2 + 8 + 5
    assert section.roofline is not None
    assert len(section.compiling.gains) == 4
    assert (found.accuracies[0].n, found.left_out) == (1, [])


def test_a_file_without_figures_is_a_section_too(tmp_path: Path) -> None:
    (section,) = findings(tmp_path, {"entries": []}).sections
    assert section.not_measured == list(GROUPS)
    assert (section.contests, section.shares, section.roofline) == ([], [], None)


@given(facts=st.dictionaries(st.sampled_from([*FACTS, "data_wait_percent"]), JSON))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_facts_of_any_shape_are_no_crash(tmp_path: Path, facts: dict[str, Any]) -> None:
    entries = [
        entry(group, name, 1.0, unit="FLOP" if group == "peaks" else "images", rounds=1)
        for group in ("loaders-augmented", "augment", "step", "epoch", "start-up", "peaks")
        for name in ("ffcv", "ours-eager", "eager", "product-fp32", "convolutions-fp32")
    ]
    copy = entry("peaks", "copy", 1.0, unit="bytes", rounds=1)
    file = read_bench(write_bench(tmp_path / "a.json", [*entries, copy]))
    for measured in file.measured:
        measured.extra.facts.update(facts)
    found = find([file], [])
    assert json.dumps(msgspec.to_builtins(found), allow_nan=False)
    assert len(found.sections[0].bottleneck.headroom) == 5
