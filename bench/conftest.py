"""What every benchmark works on, and how images per second get into its table and its JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cifarfast.dataset.manifest import Manifest, check_folder
from cifarfast.device import Device, open_device
from cifarfast.fingerprint import take_fingerprint
from cifarfast.runtime import Runtime

Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the data is and how large a step."""
    group = parser.getgroup("cifarfast")
    group.addoption("--data", type=Path, help="converted folder; by default a synthetic one of 8,192 images is made")
    group.addoption("--batch-size", type=int, default=64, help="images of one training step (default: 64)")


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
def manifest(folder: Path) -> Manifest:
    """Its manifest, after a full check."""
    return check_folder(folder, full=True)


@pytest.fixture(scope="session")
def device() -> Device:
    """The device of a default run, in fp32."""
    return open_device(Runtime(), print)


@pytest.fixture
def measure(benchmark: BenchmarkFixture, device: Device) -> Measure:
    """Times a function that handles so many images, to the end of the device's work."""

    def run(function: Callable[[], object], *, images: int, rounds: int, **extra: Any) -> None:
        def timed() -> None:
            function()
            device.synchronize()

        benchmark.pedantic(timed, rounds=rounds, warmup_rounds=1)  # type: ignore[no-untyped-call]
        assert benchmark.stats is not None
        seconds = benchmark.stats.stats
        benchmark.extra_info.update(
            images=images,
            images_per_second=images / seconds.median,
            images_per_second_quartiles=[images / seconds.q3, images / seconds.q1],
            **extra,
        )

    return run


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The fingerprint of a run, in place of what pytest-benchmark finds out, which has no versions."""
    device = open_device(Runtime(), print)
    machine_info.clear()
    machine_info.update(vars(take_fingerprint(device)), torch_threads=torch.get_num_threads())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Images per second, which the table of seconds leaves to the reader."""
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in session.benchmarks if "images_per_second" in b.extra_info] if session else []
    if rows:
        terminalreporter.section("images per second: median (quartiles), number of rounds")
    for row in rows:
        low, high = row.extra_info["images_per_second_quartiles"]
        rate = row.extra_info["images_per_second"]
        terminalreporter.line(f"{row.name:<45} {rate:>12,.0f} ({low:,.0f} to {high:,.0f}), n={row.stats.rounds}")
