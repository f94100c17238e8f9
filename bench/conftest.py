"""Benchmarks as contests, and how their figures get into pytest-benchmark's table and JSON.

A benchmark marked `contest` builds an `Entrant` and returns it. All selected variants of one benchmark
function are timed against one another when the first of them runs; pytest-benchmark, which can only time one
test after the other, is then given the rounds of each.
"""

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contest import Entrant, Timing, compete
from bench.lab import Lab, Profile
from bench.records import HEADER, Extra, Header, Measured, Skipped
from bench.statistics import speed_ratio
from cifarfast.accuracy import Interval
from cifarfast.dataset.manifest import Manifest, check_folder
from cifarfast.device import open_device
from cifarfast.errors import UserError
from cifarfast.fingerprint import take_fingerprint
from cifarfast.runtime import Runtime

HERE = Path(__file__).parent
BATCH_SIZES: Mapping[Profile, int] = {"quick": 32, "full": 512}

Outcome = Measured | BaseException
_OUTCOMES = pytest.StashKey[dict[str, dict[str, Outcome]]]()
_SKIPPED = pytest.StashKey[list[Skipped]]()
_KIND = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the data is, how much is measured, how large a step is."""
    group = parser.getgroup("cifarfast")
    group.addoption("--data", type=Path, help="converted folder; by default a synthetic one of 8,192 images is made")
    group.addoption(
        "--bench-profile",
        choices=tuple(BATCH_SIZES),
        default="quick",
        help="quick: a look, under 5 minutes on 2 cores (the default); full: for reports",
    )
    group.addoption(
        "--batch-size", type=_images, help="images of one training step (default: 32 if quick, 512 if full)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what is found out."""
    config.stash[_SKIPPED] = []
    config.stash[_OUTCOMES] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No time limit for a test whose work is to measure time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted folder that is measured on."""
    chosen: Path | None = request.config.getoption("--data")
    if chosen is not None:
        return chosen
    from data_prep.convert import convert
    from data_prep.sources.synthetic import Synthetic

    made = tmp_path_factory.mktemp("data")
    convert(Synthetic.parse("synthetic:8192,1024"), made)
    return made


@pytest.fixture(scope="session")
def manifest(folder: Path, pytestconfig: pytest.Config) -> Manifest:
    """Its manifest, after a full check."""
    found = check_folder(folder, full=True)
    pytestconfig.stash[_KIND] = found.kind
    return found


@pytest.fixture
def lab(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, folder: Path, manifest: Manifest, tmp_path: Path
) -> Lab:
    """What a benchmark works with; asks for `benchmark`, which tells pytest-benchmark that the test is one."""
    profile: Profile = pytestconfig.getoption("--bench-profile")
    return Lab(
        folder=folder,
        manifest=manifest,
        device=open_device(Runtime(), print),
        profile=profile,
        batch_size=_batch_size(pytestconfig),
        scratch=tmp_path,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Hold the contest that the item takes part in, if that has not happened yet, and record its own result."""
    if pyfuncitem.get_closest_marker("contest") is None:
        return None
    outcomes = pyfuncitem.config.stash[_OUTCOMES]
    contest = pyfuncitem.nodeid.partition("[")[0]
    if contest not in outcomes:
        outcomes[contest] = _hold(pyfuncitem)
    outcome = outcomes[contest][_name(pyfuncitem)]
    benchmark: Any = pyfuncitem.funcargs["benchmark"]
    if isinstance(outcome, Measured):
        _record(benchmark, outcome, outcomes[contest].get(outcome.extra.baseline or ""))
        return True
    benchmark.skipped = True  # which keeps pytest-benchmark from warning that nothing was measured
    if isinstance(outcome, (UserError, pytest.skip.Exception)):
        reason = str(outcome)
        pyfuncitem.config.stash[_SKIPPED].append(
            Skipped(group=_group(pyfuncitem), name=_name(pyfuncitem), reason=reason)
        )
        pytest.skip(reason)
    raise outcome


def _hold(first: pytest.Function) -> dict[str, Outcome]:
    rivals = [
        item
        for item in first.session.items
        if isinstance(item, pytest.Function) and item.nodeid.partition("[")[0] == first.nodeid.partition("[")[0]
    ]
    settings = _settings(**first.get_closest_marker("contest").kwargs)  # type: ignore[union-attr]
    lab: Any = first.funcargs["lab"]
    outcomes: dict[str, Outcome] = {}
    entrants: dict[str, Entrant] = {}
    for item in rivals:
        name = _name(item)
        scratch = lab.scratch / name
        scratch.mkdir()
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        try:
            entrants[name] = item.function(lab=replace(lab, scratch=scratch), **parameters)
        except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001, told where the item's result is recorded
            outcomes[name] = error
    _say(first.config, f"{settings['group']}: {len(entrants)} variants, {settings[lab.profile]} rounds")
    timings = compete(entrants, rounds=settings[lab.profile], synchronize=lab.device.synchronize)
    baseline = settings["baseline"] if isinstance(timings.get(settings["baseline"]), Timing) else None
    for name, timing in timings.items():
        if isinstance(timing, Timing):
            outcomes[name] = _measured(settings["group"], name, baseline, entrants[name], timing)
        else:
            outcomes[name] = timing
    return outcomes


def _say(config: pytest.Config, line: str) -> None:
    """One line at once: a contest can take minutes in which pytest shows nothing."""
    plugins: Any = config.pluginmanager
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
        plugins.get_plugin("terminalreporter").write_line(line)


def _settings(*, group: str, quick: int, full: int, baseline: str | None = None) -> dict[str, Any]:
    return {"group": group, "quick": quick, "full": full, "baseline": baseline}


def _measured(group: str, name: str, baseline: str | None, entrant: Entrant, timing: Timing) -> Measured:
    extra = Extra(
        name=name,
        baseline=baseline,
        unit=entrant.unit,
        work=entrant.work,
        calls_per_round=timing.calls_per_round,
        first_seconds=timing.first_seconds,
        facts=dict(entrant.facts),
    )
    return Measured(group=group, extra=extra, seconds=timing.seconds)


def _record(benchmark: Any, measured: Measured, baseline: Outcome | None) -> None:
    benchmark.group = measured.group
    benchmark._mode = "contest"  # what `pedantic` does, whose rounds follow one another
    stats = benchmark._make_stats(iterations=1)
    for seconds in measured.seconds:
        stats.update(seconds)
    rate = measured.rate
    benchmark.extra_info.update(
        asdict(measured.extra),
        per_second=rate.median,
        per_second_quartiles=[rate.low, rate.high],
        noisy=rate.noisy,
    )
    if isinstance(baseline, Measured) and baseline is not measured:
        benchmark.extra_info.update(ratio=asdict(_ratio(measured, baseline)))


def _ratio(measured: Measured, baseline: Measured) -> Interval:
    return speed_ratio(measured.unit_seconds, baseline.unit_seconds, paired=True)


def _group(item: pytest.Function) -> str:
    marker = item.get_closest_marker("contest")
    assert marker is not None
    return str(marker.kwargs["group"])


def _name(item: pytest.Function) -> str:
    return item.callspec.id if hasattr(item, "callspec") else item.name.removeprefix("bench_")


def _images(text: str) -> int:
    if (images := int(text)) < 2:  # BatchNorm needs two values a channel
        raise ArgumentTypeError(f"must be at least 2, not {images}")
    return images


def _batch_size(config: pytest.Config) -> int:
    asked: int | None = config.getoption("--batch-size")
    profile: Profile = config.getoption("--bench-profile")
    return asked or BATCH_SIZES[profile]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The fingerprint of a run, in place of what pytest-benchmark finds out, which has no versions."""
    fingerprint = take_fingerprint(open_device(Runtime(), print))
    machine_info.clear()
    machine_info.update(vars(fingerprint), torch_threads=torch.get_num_threads())


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """What all benchmarks of the file share."""
    header = Header(
        profile=config.getoption("--bench-profile"),
        data=config.stash.get(_KIND, "none"),
        batch_size=_batch_size(config),
        skipped=config.stash[_SKIPPED],
    )
    output_json[HEADER] = asdict(header)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Rates and ratios, which the table of seconds leaves to the reader."""
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in session.benchmarks if "per_second" in b.extra_info] if session else []
    if rows:
        terminalreporter.section("a second: median (quartiles), rounds; times the baseline (95 % interval)")
    for row in rows:
        terminalreporter.line(_line(row.group, row.extra_info, row.stats.rounds))


def _line(group: str, extra: Mapping[str, Any], rounds: int) -> str:
    low, high = extra["per_second_quartiles"]
    unit = extra["unit"] or "times"
    text = f"{group + ' ' + extra['name']:<46} {_short(extra['per_second']):>8} {unit}/s"
    text += f" ({_short(low)} to {_short(high)}), n={rounds}"
    if ratio := extra.get("ratio"):
        text += f"; {ratio['value']:.2f} x {extra['baseline']} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return text + ("; NOISY" if extra["noisy"] else "")


def _short(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.3g}"
