"""Benchmark files as `pytest bench --benchmark-json` leaves them, and whole runs, without measuring."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cifarfast.recipe import Recipe
from cifarfast.runfolder import Run, RunFolder
from tests.test_runfolder import CONFIG, row
from tests.test_summary import summary

PRECISIONS = {"fp32": 1.0, "bf16": 2.4}
MACHINE: dict[str, Any] = {
    "cpu": "a cpu",
    "cpu_isa": "AVX512 with bf16",
    "cores_allowed": 2,
    "memory_bytes": 2**34,
    "gpu": None,
    "cuda": None,
    "system": "Linux x86_64",
    "python": "3.11.2",
    "packages": {"torch": "2.14.1", "ffcv": None},
    "git_commit": "0" * 40,
    "git_dirty": False,
    "torch_threads": 2,
}
FLOPS = 2_272_032_768


def entry(
    group: str,
    name: str,
    rate: float,
    *,
    work: float = 512,
    unit: str | None = "images",
    baseline: str | None = None,
    rounds: int = 7,
    spread: float = 0.01,
    **facts: Any,
) -> dict[str, Any]:
    """A benchmark with this median rate, its rounds evenly `spread` around it."""
    around = np.linspace(1 - spread, 1 + spread, rounds) if rounds > 1 else np.ones(1)
    seconds = [work / rate * float(times) for times in around]
    extra = {
        "name": name,
        "baseline": baseline,
        "unit": unit,
        "work": work,
        "calls_per_round": 1,
        "first_seconds": None,
        "facts": facts,
    }
    return {"group": group, "name": f"bench[{name}]", "extra_info": extra, "stats": {"data": seconds}}


def everything() -> list[dict[str, Any]]:
    """Every contest but conversion: the step is the bottleneck, and compiling pays in bf16 alone."""
    loaders = {"ffcv": 90_000.0, "resident": 220_000.0, "torchvision-0": 4_000.0, "torchvision-2": 8_000.0}
    ordinary: dict[str, Any] = {"baseline": "torchvision-2"}
    entries = [entry("loaders", name, 10 * rate, work=8192, **ordinary) for name, rate in loaders.items()]
    entries += [entry("loaders-augmented", name, rate, work=8192, **ordinary) for name, rate in loaders.items()]
    for name, rate in {
        "ours-eager": 6e3,
        "ours-compiled": 2e5,
        "ffcv": 9e4,
        "torchvision": 8e3,
        "airbench": 5e4,
    }.items():
        told: dict[str, Any] = {"bytes": 512 * 15_360, "flops": 512 * 9_216}
        entries.append(entry("augment", name, rate, baseline="torchvision", **told))
    for group, times in {"forward": 3.0, "forward-backward": 1.1, "step": 1.0}.items():
        entries += [
            entry(
                group,
                f"{precision}-{layout}-{mode}",
                times * 50 * faster * (1.1 if layout == "channels-last" else 1) * _compiled(precision, mode),
                baseline="fp32-contiguous-eager",
                precision=precision,
                layout=layout,
                mode=mode,
                batch_size=512,
                flops=FLOPS * 512,
                compile_seconds=60.0 if mode == "compiled" else None,
                compile_cache="cold" if mode == "compiled" else None,
            )
            for precision, faster in PRECISIONS.items()
            for layout in ("contiguous", "channels-last")
            for mode in ("eager", "compiled")
        ]
    for name, rate in {"ordinary-eager": 130.0, "masks-eager": 220.0, "none-eager": 230.0}.items():
        entries.append(entry("dropout", name, rate, baseline="ordinary-eager", batch_size=512))
    for name, rate in {"torch": 800.0, "winograd": 1300.0}.items():
        entries.append(entry("pooling", name, rate, baseline="torch", batch_size=512))
    entries += [
        entry("epoch", name, 100.0, work=4096, data_wait_percent=[wait, wait + 0.2, wait + 0.1], **ordinary)
        for name, wait in {"ffcv": 0.1, "resident": 0.0, "torchvision-0": 2.5, "torchvision-2": 1.5}.items()
    ]
    names = ("fp32-contiguous-eager", "fp32-channels-last-eager")
    entries += [entry("evaluate", name, 270.0, baseline=names[0], spread=0.2) for name in names]
    entries += [entry("checkpoint", name, 1e9, work=8e7, unit="bytes") for name in ("waiting", "whole")]
    for name, seconds in {"eager": 8.0, "compiled-cold": 80.0, "compiled-warm": 20.0}.items():
        entries.append(entry("start-up", name, 1 / seconds, work=1, unit=None, baseline="eager"))
    entries += [entry("peaks", f"product-{p}", 170e9 * f, work=1.7e10, unit="FLOP") for p, f in PRECISIONS.items()]
    entries += [
        entry("peaks", f"convolutions-{p}", 165e9 * f, work=FLOPS * 512, unit="FLOP", batch_size=512)
        for p, f in PRECISIONS.items()
    ]
    return [*entries, entry("peaks", "copy", 60e9, work=1e9, unit="bytes")]


def write_bench(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    *,
    data: str = "cifar10",
    profile: str = "full",
    batch_size: int = 512,
    skipped: Sequence[Mapping[str, str]] = (),
    date: str = "2026-01-02T03:04:05+00:00",
    **machine: Any,
) -> Path:
    """Write a file of these benchmarks; whatever `machine` names is another."""
    header = {"schema": 1, "profile": profile, "data": data, "batch_size": batch_size, "skipped": list(skipped)}
    found = {"datetime": date, "machine_info": {**MACHINE, **machine}, "benchmarks": list(entries), "cifarfast": header}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def whole_run(path: Path, accuracy: float, *, seed: int = 0, epochs: int = 20, epoch_seconds: float = 200.0) -> Run:
    """A run of `reference` that ends with this test accuracy; of another recipe where `epochs` is not 20."""
    rows = [row(epoch, accuracy=accuracy, epoch_seconds=epoch_seconds) for epoch in range(1, epochs + 1)]
    recipe = Recipe(epochs=epochs)
    return Run(
        path=path,
        config=replace(CONFIG, recipe=recipe, seed=seed),
        rows=rows,
        summary=replace(summary(rows), recipe=recipe, seed=seed),
    )


def write_run(run: Run) -> Path:
    """Write it into its folder."""
    with RunFolder(run.path) as folder:
        folder.write_config(run.config)
        folder.rewrite(run.rows)
        if run.summary is not None:
            folder.write_summary(run.summary)
    return run.path


def _compiled(precision: str, mode: str) -> float:
    """How many times as fast compiling makes the step."""
    return {"fp32": 0.9, "bf16": 1.3}[precision] if mode == "compiled" else 1.0
