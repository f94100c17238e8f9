"""Benchmark files that somebody has damaged or made up."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records import read_bench
from cifarfast.errors import UserError
from tests.bench.made import entry, write_bench

ENTRIES = [
    entry("step", "eager", 50.0, rounds=5, flops=10),
    entry("step", "compiled", 60.0, rounds=4, baseline="eager"),
    entry("start-up", "eager", 0.1, rounds=8, work=1, unit=None),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    skipped = [{"group": "step", "name": "fp16", "reason": "no such kernel"}]
    return write_bench(tmp_path / "bench.json", ENTRIES, data="synthetic", profile="quick", skipped=skipped)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_bench(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_a_file_is_read(path: Path) -> None:
    found = read_bench(path)
    assert (found.header.data, found.header.profile, found.header.batch_size) == ("synthetic", "quick", 512)
    assert [(m.group, m.name, len(m.seconds)) for m in found.measured] == [
        ("step", "eager", 5),
        ("step", "compiled", 4),
        ("start-up", "eager", 8),
    ]
    eager, compiled, start_up = found.measured
    assert eager.seconds == ENTRIES[0]["stats"]["data"]
    assert eager.unit_seconds == pytest.approx([seconds / 512 for seconds in eager.seconds])
    assert eager.rate.median == pytest.approx(50.0)
    assert eager.extra.facts == {"flops": 10}
    assert found.baseline_of(compiled) is eager
    assert found.baseline_of(eager) is None
    assert found.find("start-up", "eager") is start_up
    assert found.find("start-up", "compiled") is None
    assert found.header.skipped[0].reason == "no such kernel"
    assert (found.machine.cpu, found.machine.torch_threads) == ("a cpu", 2)


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_truncated_file(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    assert "is not JSON: make it again with pytest bench" in refusal(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"cifarfast": NaN}', b'{"cifarfast": {"schema": 1}}}'])
def test_what_is_no_json(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not JSON" in refusal(path)


def test_facts_without_bottom(path: Path) -> None:
    path.write_text(path.read_text().replace('"flops": 10', f'"flops": {"[" * 10**5}{"]" * 10**5}'))
    assert "is not JSON" in refusal(path)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b'"text"', b'{"benchmarks": [], "machine_info": {}}'])
def test_json_of_something_else(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not a benchmark file of this version" in refusal(path)


def _changed(path: Path, change: Callable[[Any], object]) -> str:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return refusal(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r.pop("machine_info"), "missing required field `machine_info`"),
        (lambda r: r["machine_info"].pop("torch_threads"), "missing required field `torch_threads`"),
        (lambda r: r["machine_info"].update(cores_allowed="2"), "Expected `int`, got `str`"),
        (lambda r: r["cifarfast"].update(skipped=None), "Expected `array`, got `null`"),
        (lambda r: r["benchmarks"][0].update(stats=[1.0]), "Expected `object`, got `array`"),
        (lambda r: r["benchmarks"][0]["stats"].update(data=["1"]), "Expected `float`, got `str`"),
        (lambda r: r["benchmarks"][0]["stats"].update(data={"0": 1.0}), "Expected `array`, got `object`"),
        (lambda r: r["benchmarks"][0]["extra_info"].update(name=None), "Expected `str`, got `null`"),
        (lambda r: r["benchmarks"][0]["extra_info"].pop("work"), "missing required field `work`"),
    ],
)
def test_wrong_types_are_named(path: Path, change: Callable[[Any], object], told: str) -> None:
    assert told in _changed(path, change)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_figures_that_json_does_not_have(path: Path, literal: str) -> None:
    path.write_text(path.read_text().replace('"work": 512', f'"work": {literal}', 1))
    assert "is not" in refusal(path)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-320, 1e300])
def test_durations_that_cannot_be(path: Path, seconds: float) -> None:
    told = _changed(path, lambda r: r["benchmarks"][1]["stats"]["data"].append(seconds))
    assert "has a duration or an amount of work in step compiled that cannot be" in told


@pytest.mark.parametrize(
    "change",
    [lambda b: b["stats"].update(data=[]), lambda b: b["extra_info"].update(work=0)],
)
def test_no_rounds_or_no_work(path: Path, change: Callable[[Any], object]) -> None:
    assert "in step eager that cannot be" in _changed(path, lambda r: change(r["benchmarks"][0]))


def test_a_newer_schema_whatever_its_layout(path: Path) -> None:
    def change(record: Any) -> None:
        record["cifarfast"] = {"schema": 2}

    assert "has schema 2, newer than 1: update cifarfast" in _changed(path, change)


def test_the_same_name_twice(path: Path) -> None:
    assert "has step compiled twice" in _changed(path, lambda r: r["benchmarks"].append(r["benchmarks"][1]))


def test_more_than_anybody_measures(path: Path) -> None:
    many = [entry("step", str(number), 1.0, rounds=1) for number in range(1001)]
    assert "has more than 1,000 benchmarks" in refusal(write_bench(path, many))
    assert "has more than 10,000 rounds of step eager" in refusal(
        write_bench(path, [entry("step", "eager", 1.0, rounds=10_001)])
    )


def test_a_huge_file_is_not_read(path: Path) -> None:
    os.truncate(path, 1 << 40)
    assert "cannot be read (it has more than 67,108,864 bytes)" in refusal(path)


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe", "below a file"])
def test_what_is_no_file(tmp_path: Path, path: Path, kind: str) -> None:
    other = path / "b.json" if kind == "below a file" else tmp_path / "b.json"
    if kind == "folder":
        other.mkdir()
    elif kind == "pipe":
        os.mkfifo(other)
    assert "cannot be read" in refusal(other)
