"""200 short epochs with each loader: memory, threads and file descriptors must not grow."""

import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.stats import linregress, t

import cifarfast
from cifarfast.display import Display
from cifarfast.errors import UserError
from cifarfast.loaders import LoaderName
from cifarfast.metrics import EpochRow

EPOCHS = 200
WARM_UP = 20
"""Epochs after which memory is judged: by then every allocator has what it needs."""
LEAK_BYTES = 1 << 20
"""More an epoch is a leak: one gradient of every weight is 26 MB."""


@pytest.mark.benchmark(group="soak")
@pytest.mark.parametrize("name", ["resident", "ffcv", "torchvision"])
def bench_soak(
    benchmark: BenchmarkFixture, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: LoaderName
) -> None:
    """Training, evaluation, metrics and checkpoint of 4 training and 4 test images, again and again."""
    process = psutil.Process()
    rows: list[tuple[int, int, int]] = []

    class Watching(Display):
        """Looks at the process at the end of each epoch."""

        def epoch(self, row: EpochRow) -> None:
            rows.append((process.memory_info().rss, threading.active_count(), process.num_fds()))
            super().epoch(row)

    monkeypatch.setattr("cifarfast.loop.Display", Watching)
    recipe = replace(cifarfast.RECIPES["reference"], batch_size=2, epochs=EPOCHS)
    runtime = cifarfast.Runtime(loader=name, workers=1)

    def soak() -> None:
        cifarfast.fit(recipe, runtime, data=folder, out=tmp_path / "run", train_images=4, test_images=4, verify=False)

    try:
        benchmark.pedantic(soak, rounds=1)  # type: ignore[no-untyped-call]
    except UserError as error:
        pytest.skip(str(error))
    memory, threads, descriptors = zip(*rows, strict=True)
    fit = linregress(range(WARM_UP, EPOCHS), memory[WARM_UP:])
    half_width = float(t.ppf(0.975, EPOCHS - WARM_UP - 2) * fit.stderr)
    benchmark.extra_info.update(
        epochs=EPOCHS,
        memory_bytes={"after_warm_up": memory[WARM_UP], "end": memory[-1]},
        memory_bytes_per_epoch=float(fit.slope),
        memory_bytes_per_epoch_95=[float(fit.slope) - half_width, float(fit.slope) + half_width],
        threads={"after_warm_up": threads[WARM_UP], "end": threads[-1], "most": max(threads[WARM_UP:])},
        descriptors={"after_warm_up": descriptors[WARM_UP], "end": descriptors[-1], "most": max(descriptors[WARM_UP:])},
    )
    print(benchmark.extra_info)
    assert fit.slope + half_width < LEAK_BYTES
    assert threads[-1] <= max(threads[: WARM_UP + 1])
    assert descriptors[-1] <= max(descriptors[: WARM_UP + 1])
