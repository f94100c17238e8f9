"""What the network of a run gets right on its test images."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional as F

from cifarfast.config import SavedConfig
from cifarfast.dataset.manifest import Manifest, check_folder, unchanged
from cifarfast.device import Device, open_device
from cifarfast.door import note
from cifarfast.errors import UserError
from cifarfast.evaluation import evaluate
from cifarfast.loaders.base import Loader
from cifarfast.recipe import Tta
from cifarfast.runfolder import MODEL_NAME, Run, read_model, read_run
from cifarfast.runtime import Runtime
from cifarfast.setup import feed_of, loader_of
from cifarfast.tta import Augmented


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How the images of one class fared."""

    name: str
    """Its name."""
    images: int
    """Test images of it."""
    right: int
    """Of these, taken for what they are."""
    loss: float | None
    """Their mean cross entropy, None where there are none."""


@dataclass(frozen=True, kw_only=True)
class RunScore:
    """How all test images fared, and in what circumstances."""

    data: str
    """`cifar10`, `custom` or `synthetic`."""
    tta: Tta
    """Test-time augmentation."""
    device: str
    """cpu, cuda or mps."""
    precision: str
    """fp32, bf16 or fp16."""
    images: int
    """Test images."""
    right: int
    """Of these, taken for what they are."""
    accuracy: float
    """Their share, 0 to 1."""
    loss: float
    """Mean cross entropy."""
    recorded_right: int | None
    """What training counted after its last epoch; None where no summary says so, or with another augmentation."""
    classes: list[ClassScore]
    """In the order of the labels."""


def evaluate_run(
    path: Path, *, tta: Tta | None = None, data: Path | None = None, device: str | None = None
) -> RunScore:
    """Evaluate a run on the test images that it was evaluated on, in its precision, layout and batch size.

    That is what training did after its last epoch, and on the same machine the same number.

    Args:
        path: the run folder.
        tta: test-time augmentation in place of the recipe's.
        data: where its data is now; by default where it was.
        device: in place of the one that the run asked for.

    Raises:
        UserError: the run, its data or the device is unusable, or the data is not the run's.
    """
    run, model = read_run(path), read_model(path)
    usual = run.config.recipe.tta
    tta, runtime = tta or usual, _runtime(run, device)
    target = open_device(runtime, note)
    loader, manifest = open_test(run.config, data, runtime, target)
    network = Augmented(target.place(model), tta).eval()
    mean, std = (target.send(torch.tensor(values)) for values in (run.config.mean, run.config.std))
    with loader.epoch(0) as batches:
        found = evaluate(network, batches, target, mean=mean, std=std)
    if not math.isfinite(found.score.loss):
        raise UserError(f"{path / MODEL_NAME} answers with numbers that are not finite: name another run")
    logits, labels = found.logits.cpu(), found.labels.cpu()
    summary = run.summary if tta == usual else None
    return RunScore(
        data=manifest.kind,
        tta=tta,
        device=target.target.type,
        precision=target.amp_dtype or "fp32",
        images=found.score.images,
        right=int((logits.argmax(1) == labels).sum()),
        accuracy=found.score.accuracy,
        loss=found.score.loss,
        recorded_right=None if summary is None else round(summary.test_accuracy * summary.data.test_images),
        classes=[
            _class_score(name, logits[labels == label], labels[labels == label])
            for label, name in enumerate(run.config.class_names)
        ],
    )


def open_test(config: SavedConfig, data: Path | None, runtime: Runtime, device: Device) -> tuple[Loader, Manifest]:
    """The test images that a run was evaluated on, in its batches, and what is known of its data.

    Args:
        data: where its data is now, None: where it was.

    Raises:
        UserError: the data is missing or damaged, or is not the run's.
    """
    folder = data or config.data
    manifest = check_folder(folder, full=config.verify)
    if manifest.test.sha256 != config.test_sha256:
        raise UserError(f"{folder} holds other test images than the run had: name its data with --data")
    feed = feed_of(folder, manifest, "test", config.recipe, config.test_images, config.seed)
    with unchanged(folder, manifest):
        loader = loader_of(feed, config.recipe, runtime, device, manifest)
    return loader, manifest


def _runtime(run: Run, device: str | None) -> Runtime:
    """What the run asked for, in the precision that it came to, so that nothing is probed again.

    The loader is one that is always there: all deliver the same test images.
    """
    runtime = replace(run.config.runtime, loader="resident")
    if run.summary is not None:
        precision = run.summary.runtime.effective.precision
        mixed = precision != "fp32"
        runtime = replace(runtime, amp=mixed, amp_dtype=precision if mixed else "auto")  # type: ignore[arg-type]
    return runtime if device is None else replace(runtime, device=device)  # type: ignore[arg-type]


def _class_score(name: str, logits: torch.Tensor, labels: torch.Tensor) -> ClassScore:
    return ClassScore(
        name=name,
        images=len(labels),
        right=int((logits.argmax(1) == labels).sum()),
        loss=float(F.cross_entropy(logits, labels)) if len(labels) else None,
    )
