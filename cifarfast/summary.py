"""summary.json: what a run was, on what it ran, and what came out. What was not measured is null."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cifarfast.dataset.manifest import Manifest
from cifarfast.fingerprint import Fingerprint
from cifarfast.metrics import SCHEMA, EpochRow
from cifarfast.range_test import Sweep
from cifarfast.recipe import RECIPES, Recipe
from cifarfast.runtime import Runtime

ACCURACY_LEVELS = (0.80, 0.90, 0.94)


@dataclass(frozen=True, kw_only=True)
class Effective:
    """What the runtime came to on this machine."""

    device: str
    """cpu, cuda or mps."""
    compile: bool
    """Whether the step ran compiled."""
    precision: str
    """fp32, bf16 or fp16."""
    channels_last: bool
    """Memory layout."""
    loader: str
    """What read the data."""
    workers: int
    """Its threads or processes."""
    threads: int
    """torch's threads on the CPU."""
    tf32: bool
    """Whether fp32 convolutions and products may run in TF32 (on CUDA)."""
    cudnn_benchmark: bool
    """Whether cuDNN may time its algorithms and choose (on CUDA)."""
    deterministic: bool
    """Whether only deterministic kernels were allowed."""
    cuda_graphs: bool = False
    """Whether steps were replayed as CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class RuntimeRecord:
    """What was asked of the machine, and what it came to."""

    asked: Runtime
    """The flags."""
    effective: Effective
    """What was in effect."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was trained and tested on."""

    kind: str
    """`cifar10`, `custom` or `synthetic`."""
    official: bool
    """Whether the batches were byte for byte those of CIFAR-10."""
    train_images: int
    """Training images in use."""
    test_images: int
    """Test images in use."""
    train_images_available: int
    """Training images in the data."""
    test_images_available: int
    """Test images in the data."""
    train_sha256: str
    """Digest of train.beton."""
    test_sha256: str
    """Digest of test.beton."""
    verified: bool
    """Whether the files were held against these digests before the run."""

    @property
    def whole(self) -> bool:
        """Whether all images were in use."""
        return (self.train_images, self.test_images) == (self.train_images_available, self.test_images_available)


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Durations of something that happened once an epoch; the first is apart, for it warms up."""

    first: float
    """The first epoch's."""
    median: float | None
    """Median of the others, null where there are none, like the rest."""
    min: float | None
    """Shortest of the others."""
    max: float | None
    """Longest of the others."""
    n: int
    """Number of the others."""


@dataclass(frozen=True, kw_only=True)
class Compile:
    """What compiling cost."""

    seconds: float
    """From the first call to its end, one step on noise included."""
    cache: str | None
    """`warm` if every kernel came from the compile cache, `cold` if any did not, null if unknown; `in-process` where an
    earlier run of the same process had compiled the step, and this one spent nothing on it."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When an accuracy was first reached."""

    accuracy: float
    """Test accuracy, 0 to 1."""
    seconds: float | None
    """Training seconds (no evaluation, no compilation) to the end of that epoch, null if never."""
    epoch: int | None
    """That epoch."""


class Epoch(Protocol):
    """What `reached` asks of an epoch."""

    @property
    def epoch(self) -> int:
        """1 for the first."""

    @property
    def epoch_seconds(self) -> float:
        """Training only."""

    @property
    def test_accuracy(self) -> float:
        """At its end, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The whole of summary.json."""

    schema: int = SCHEMA
    """Version of this layout."""
    recipe: Recipe
    """What was learned."""
    sweep: Sweep | None = None
    """The range test, in lr_range.json, that found the recipe's max_lr; null where that was given."""
    seed: int
    """The seed."""
    runtime: RuntimeRecord
    """How it was executed."""
    fingerprint: Fingerprint
    """Machine, versions, commit."""
    data: Data
    """What was trained and tested on."""
    started: str
    """When the run was first started: UTC time, ISO 8601."""
    total_seconds: float
    """The whole run, from checking the data (the range test included) to the last checkpoint; not what was lost."""
    checkpoint_seconds: float | None = None
    """What of it training waited for checkpoints."""
    resumed_at: list[int] = field(default_factory=list)
    """Steps after which the run was taken up again; fingerprint, memory and compilation are of the last part."""
    model_parameters: int
    """Trainable parameters."""
    flops_per_image: dict[str, int]
    """`forward` and `train` (forward and backward), a multiply-add counted as two."""
    epochs: int
    """Epochs trained."""
    steps: int
    """Optimizer steps taken."""
    skipped_steps: int
    """Steps of these that left the weights alone (overflow in fp16)."""
    train_accuracy: float
    """Of the last epoch, on the augmented images as they were trained on, 0 to 1."""
    test_accuracy: float
    """After the last epoch, 0 to 1, with the recipe's test-time augmentation (`reference` has none)."""
    test_loss: float
    """After the last epoch."""
    target_accuracy: float
    """The recipe's target."""
    target_met: bool | None
    """Null unless the data is the real, whole CIFAR-10 and the run has the recipe's full length."""
    epoch_seconds: Seconds
    """Training only."""
    eval_seconds: Seconds
    """Evaluation on the test images."""
    compile_seconds: Compile | None
    """Null where nothing was compiled."""
    capture_seconds: float | None = None
    """Capturing CUDA graphs on noise, before the first epoch; null where there are none."""
    images_per_second: float
    """Training images an epoch over the median epoch (the first where there is no other)."""
    data_wait_percent: float
    """Share of all training seconds spent waiting for the loader."""
    peak_memory_bytes: int
    """Most memory: allocated on the GPU, or resident in the process on a CPU."""
    seconds_to_accuracy: list[Reached]
    """When 80 %, 90 %, 94 % and the target were first reached."""


def of_rows(recipe: Recipe, data: Data, rows: Sequence[EpochRow]) -> dict[str, Any]:
    """The fields of a summary that follow from its epochs."""
    last = rows[-1]
    epoch_seconds = spread([row.epoch_seconds for row in rows])
    images = last.steps * recipe.batch_size / last.epoch
    return {
        "epochs": last.epoch,
        "steps": last.steps,
        "train_accuracy": last.train_accuracy,
        "test_accuracy": last.test_accuracy,
        "test_loss": last.test_loss,
        "target_accuracy": recipe.target_accuracy,
        "target_met": target_met(recipe, data, last),
        "epoch_seconds": epoch_seconds,
        "eval_seconds": spread([row.eval_seconds for row in rows]),
        "images_per_second": images / (epoch_seconds.median or epoch_seconds.first),
        "data_wait_percent": sum(row.data_wait_percent * row.epoch_seconds for row in rows)
        / sum(row.epoch_seconds for row in rows),
        "peak_memory_bytes": last.peak_memory_bytes,
        "seconds_to_accuracy": [reached(level, rows) for level in sorted({*ACCURACY_LEVELS, recipe.target_accuracy})],
    }


def data_of(manifest: Manifest, *, train_images: int, test_images: int, verified: bool) -> Data:
    """What of a converted folder a run used."""
    return Data(
        kind=manifest.kind,
        official=manifest.official,
        train_images=train_images,
        test_images=test_images,
        train_images_available=manifest.train.images,
        test_images_available=manifest.test.images,
        train_sha256=manifest.train.sha256,
        test_sha256=manifest.test.sha256,
        verified=verified,
    )


def machine(fingerprint: Fingerprint, effective: Effective) -> str:
    """On what a run ran, beside the name of its processor."""
    if effective.device == "cuda":
        device = f"CUDA {fingerprint.cuda}"
    elif effective.device == "mps":
        device = "MPS"
    else:
        device = f"{effective.threads} threads, {fingerprint.cpu_isa}"
    parts = [
        device,
        effective.precision,
        "compiled" if effective.compile else "eager",
        *(["CUDA graphs"] if effective.cuda_graphs else []),
        f"torch {fingerprint.packages.get('torch')}",
    ]
    return ", ".join(parts)


def where(fingerprint: Fingerprint, effective: Effective) -> str:
    """All that a reader needs to know of where the seconds of a run are from."""
    layout = "channels-last" if effective.channels_last else "contiguous"
    return (
        f"{fingerprint.gpu or fingerprint.cpu}, {machine(fingerprint, effective)}, {layout}, loader {effective.loader}"
    )


def target_met(recipe: Recipe, data: Data, last: EpochRow) -> bool | None:
    """Whether the run reached its recipe's target; None where the question makes no sense."""
    full_length = last.epoch == RECIPES.get(recipe.name, recipe).epochs
    if not (data.official and data.whole and full_length):
        return None
    return last.test_accuracy >= recipe.target_accuracy


def spread(seconds: Sequence[float]) -> Seconds:
    """First, and median, shortest and longest of the rest."""
    first, *rest = seconds
    if not rest:
        return Seconds(first=first, median=None, min=None, max=None, n=0)
    return Seconds(first=first, median=statistics.median(rest), min=min(rest), max=max(rest), n=len(rest))


def reached(accuracy: float, rows: Sequence[Epoch]) -> Reached:
    """Training seconds until `accuracy` was first reached."""
    seconds = 0.0
    for row in rows:
        seconds += row.epoch_seconds
        if row.test_accuracy >= accuracy:
            return Reached(accuracy=accuracy, seconds=seconds, epoch=row.epoch)
    return Reached(accuracy=accuracy, seconds=None, epoch=None)
