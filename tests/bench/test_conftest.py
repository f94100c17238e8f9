"""Contests under pytest: a small bench suite of its own, in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.records import BenchFile, read_bench
from tests.commands import ROOT, command

SUITE = """
import pytest
from bench.contest import Entrant
from bench.lab import Lab
from cifarfast.errors import UserError

SECONDS = {"slow": 4.0, "fast": 2.0}


@pytest.mark.contest(group="race", quick=3, full=6, baseline="slow")
@pytest.mark.parametrize("name", ["fast", "slow", "missing", "cannot", "broken"])
def bench_race(lab: Lab, name: str) -> Entrant:
    if name == "missing":
        raise UserError("no such library here")
    if name == "cannot":
        pytest.skip("not on this device")
    if name == "broken":
        raise ZeroDivisionError("a fault of ours")
    assert lab.scratch.is_dir()
    return Entrant(once=lambda: SECONDS[name], work=8, facts={"name": name, "batch_size": lab.batch_size})


@pytest.mark.contest(group="alone", quick=1, full=1)
def bench_alone(lab: Lab) -> Entrant:
    return Entrant(once=lambda: 1.0, unit=None, warm_up=0)


def bench_that_is_no_contest() -> None:
    raise AssertionError("--benchmark-only leaves it out")
"""


Held = tuple[str, BenchFile, dict[str, Any]]


def hold(folder: Path, data: Path, *arguments: str) -> "tuple[subprocess.CompletedProcess[str], Path]":
    (folder / "conftest.py").write_text("from bench.conftest import *\n")
    (folder / "bench_small.py").write_text(SUITE)
    results = folder / "bench.json"
    options = ("-c", ROOT / "pyproject.toml", "--rootdir", folder, "--benchmark-only", "--benchmark-json", results)
    # Run by a worker of pytest-xdist, it would think that it were one, and not measure.
    done = command("pytest", folder, *options, "--data", data, *arguments, cwd=folder, PYTEST_XDIST_WORKER="")
    return done, results


@pytest.fixture(scope="module")
def held(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Held:
    done, results = hold(tmp_path_factory.mktemp("suite"), data)
    assert done.returncode == 1, done.stdout + done.stderr  # one variant is broken
    return done.stdout, read_bench(results), json.loads(results.read_text())


def test_rounds_reach_the_file(held: Held) -> None:
    _, file, _ = held
    assert [(m.group, m.name, m.seconds) for m in file.measured] == [
        ("race", "fast", [2.0] * 3),
        ("race", "slow", [4.0] * 3),
        ("alone", "alone", [1.0]),
    ]
    fast, slow, alone = file.measured
    assert fast.rate.median == 4.0
    assert fast.extra.facts == {"name": "fast", "batch_size": 32}
    assert file.baseline_of(fast) == slow
    assert file.baseline_of(slow) is None
    assert (alone.extra.unit, alone.extra.first_seconds) == (None, None)
    assert (file.header.profile, file.header.data) == ("quick", "synthetic")
    assert file.machine.packages["torch"]


def test_what_was_not_measured_is_in_the_file_with_its_reason(held: Held) -> None:
    _, file, _ = held
    assert [(s.group, s.name, s.reason) for s in file.header.skipped] == [
        ("race", "missing", "no such library here"),
        ("race", "cannot", "not on this device"),
    ]


def test_a_fault_is_shown_and_does_not_stop_the_others(held: Held) -> None:
    output, file, _ = held
    assert "ZeroDivisionError: a fault of ours" in output
    assert "1 failed, 3 passed, 3 skipped" in output
    assert file.find("race", "broken") is None


def test_other_programs_and_people_find_rates_and_ratios(held: Held) -> None:
    output, _, raw = held
    fast = raw["benchmarks"][0]
    assert fast["name"] == "bench_race[fast]"
    assert fast["stats"]["median"] == 2.0
    assert fast["extra_info"]["per_second"] == 4.0
    assert fast["extra_info"]["ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert "2.00 x slow (2.00 to 2.00)" in output


@pytest.mark.parametrize("size", ["0", "1", "-5", "many"])
def test_an_impossible_batch_size_is_refused(tmp_path: Path, size: str) -> None:
    done, _ = hold(tmp_path, tmp_path, f"--batch-size={size}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "argument --batch-size: " in done.stderr


def test_selection_and_profile(data: Path, tmp_path: Path) -> None:
    done, results = hold(tmp_path, data, "-k", "fast", "--bench-profile", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    (fast,) = read_bench(results).measured
    assert len(fast.seconds) == 6
    assert fast.extra.baseline is None  # it was not selected
    assert fast.extra.facts["batch_size"] == 512
