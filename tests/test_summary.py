from dataclasses import replace

import pytest

from cifarfast.fingerprint import Fingerprint
from cifarfast.metrics import EpochRow
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.summary import (
    Compile,
    Data,
    Effective,
    Reached,
    RuntimeRecord,
    Summary,
    machine,
    of_rows,
    reached,
    spread,
    target_met,
)
from tests.test_runfolder import row


def used(*, official: bool = True, train_images: int = 50_000) -> Data:
    return Data(
        kind="cifar10",
        official=official,
        train_images=train_images,
        test_images=10_000,
        train_images_available=50_000,
        test_images_available=10_000,
        train_sha256="0" * 64,
        test_sha256="0" * 64,
        verified=True,
    )


EFFECTIVE = Effective(
    device="cpu",
    compile=False,
    precision="fp32",
    channels_last=True,
    loader="resident",
    workers=1,
    threads=2,
    tf32=False,
    cudnn_benchmark=False,
    deterministic=True,
)


def summary(rows: list[EpochRow]) -> Summary:
    recipe = Recipe(epochs=len(rows))
    return Summary(
        recipe=recipe,
        seed=0,
        runtime=RuntimeRecord(asked=Runtime(), effective=EFFECTIVE),
        fingerprint=Fingerprint(
            cpu="a cpu",
            cpu_isa="AVX2",
            cores_allowed=2,
            memory_bytes=2**34,
            gpu=None,
            cuda=None,
            system="Linux x86_64",
            python="3.11.2",
            packages={"torch": "2.14.1", "ffcv": None},
            git_commit="0" * 40,
            git_dirty=False,
        ),
        data=used(),
        started="2026-01-02T03:04:05+00:00",
        total_seconds=40.5,
        model_parameters=6_573_130,
        flops_per_image={"forward": 10**9, "train": 3 * 10**9},
        skipped_steps=0,
        compile_seconds=Compile(seconds=1.5, cache=None),
        **of_rows(recipe, used(), rows),
    )


def test_the_first_epoch_is_apart() -> None:
    seconds = spread([30.0, 12.0, 10.0, 11.0])
    assert (seconds.first, seconds.median, seconds.min, seconds.max, seconds.n) == (30.0, 11.0, 10.0, 12.0, 3)
    alone = spread([30.0])
    assert (alone.first, alone.median, alone.min, alone.max, alone.n) == (30.0, None, None, None, 0)


@pytest.mark.parametrize(
    ("data", "epochs", "accuracy", "met"),
    [
        (used(), 20, 0.9142, True),
        (used(), 20, 0.9141, False),
        (used(), 19, 0.95, None),
        (used(official=False), 20, 0.95, None),
        (used(train_images=49_999), 20, 0.95, None),
    ],
)
def test_the_target_is_judged_only_on_a_whole_run_on_the_whole_data(
    data: Data, epochs: int, accuracy: float, met: bool | None
) -> None:
    assert target_met(Recipe(epochs=epochs), data, row(epochs, accuracy)) is met


def test_time_to_accuracy_is_training_time_to_the_end_of_the_epoch() -> None:
    rows = [row(1, 0.5, 12.0), row(2, 0.92, 10.0), row(3, 0.91, 10.0)]
    assert reached(0.9, rows) == Reached(accuracy=0.9, seconds=22.0, epoch=2)
    assert reached(0.93, rows) == Reached(accuracy=0.93, seconds=None, epoch=None)


def test_a_machine_is_named_by_what_it_computes_on() -> None:
    made = summary([row(1)])
    metal = replace(made.fingerprint, gpu="Apple GPU")
    assert machine(made.fingerprint, EFFECTIVE).startswith("2 threads, ")
    assert machine(metal, replace(EFFECTIVE, device="mps")).startswith("MPS, fp32, ")
    nvidia = replace(made.fingerprint, gpu="NVIDIA A100", cuda="13.0")
    assert machine(nvidia, replace(EFFECTIVE, device="cuda")).startswith("CUDA 13.0, fp32, eager, torch ")
    captured = replace(EFFECTIVE, device="cuda", cuda_graphs=True)
    assert machine(nvidia, captured).startswith("CUDA 13.0, fp32, eager, CUDA graphs, torch ")
