"""What the network of a finished run gets right on the test split."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional as F

from cifarfast.augment import normalize
from cifarfast.dataset.manifest import check_folder
from cifarfast.device import Device, open_device
from cifarfast.door import note
from cifarfast.errors import UserError
from cifarfast.loaders.base import Loader
from cifarfast.runfolder import Run, read_model, read_run
from cifarfast.runtime import Runtime
from cifarfast.setup import feed_of, loader_of
from cifarfast.step import Statistics
from cifarfast.tta import Tta, augmented_logits


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
class Evaluation:
    """What a network gets right."""

    tta: Tta
    """Test-time augmentation."""
    images: int
    """Test images."""
    right: int
    """Of these, taken for what they are."""
    accuracy: float
    """Their share, 0 to 1."""
    loss: float
    """Mean cross entropy."""
    recorded_right: int | None
    """What training counted after its last epoch, without augmentation; None for an unfinished run."""
    classes: list[ClassScore]
    """In the order of the labels."""


def evaluate_run(path: Path, *, tta: Tta = "none", data: Path | None = None, device: str | None = None) -> Evaluation:
    """Evaluate a run on the test images that it was evaluated on, in its precision, layout and batch size.

    Args:
        data: where its data is now; by default where it was.
        device: in place of the one that the run asked for.

    Raises:
        UserError: the run, its data or the device is unusable, or the data is not the run's.
    """
    run, model = read_run(path), read_model(path)
    runtime = runtime_of(run, device)
    target = open_device(runtime, note)
    loader = open_test(run, data or run.config.data, runtime, target)
    network = target.place(model)
    mean, std = (target.send(torch.tensor(values)) for values in (run.config.mean, run.config.std))
    statistics, answers, truths = Statistics(target.target), [], []
    with torch.inference_mode(), loader.epoch(0) as batches:
        for images, labels in batches:
            inputs = normalize(images, mean, std, target.compute_dtype)
            with target.autocast():
                logits = augmented_logits(
                    lambda x: network(x.contiguous(memory_format=target.memory_format)).float(), inputs, tta
                )
                statistics.add(logits, labels, F.cross_entropy(logits, labels))
            answers.append(logits.cpu())
            truths.append(labels.cpu())
    score, logits, labels = statistics.take(), torch.cat(answers), torch.cat(truths)
    right, losses = logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none")
    count, summary = len(labels), run.summary
    return Evaluation(
        tta=tta,
        images=count,
        right=int(right.sum()),
        accuracy=score.accuracy,
        loss=score.loss,
        recorded_right=None if summary is None else round(summary.test_accuracy * summary.data.test_images),
        classes=[
            ClassScore(
                name=name,
                images=int((labels == i).sum()),
                right=int(right[labels == i].sum()),
                loss=float(losses[labels == i].mean()) if (labels == i).any() else None,
            )
            for i, name in enumerate(run.config.class_names)
        ],
    )


def runtime_of(run: Run, device: str | None) -> Runtime:
    """What the run asked for, in the precision that it came to, so that nothing is probed again."""
    runtime = run.config.runtime
    if run.summary is not None:
        precision = run.summary.runtime.effective.precision
        dtype = {"bf16": "bf16", "fp16": "fp16"}.get(precision, "auto")
        runtime = replace(runtime, amp=precision != "fp32", amp_dtype=dtype)  # type: ignore[arg-type]
    return runtime if device is None else replace(runtime, device=device)  # type: ignore[arg-type]


def open_test(run: Run, data: Path, runtime: Runtime, device: Device) -> Loader:
    """The test images that a run was evaluated on, in its batches.

    Raises:
        UserError: the data is missing or damaged, or is not the run's.
    """
    config = run.config
    manifest = check_folder(data, full=config.verify)
    if manifest.test.sha256 != config.test_sha256:
        raise UserError(f"{data} holds other test images than the run had: name its data with --data")
    feed = feed_of(data, manifest, "test", config.recipe, config.test_images, config.seed)
    return loader_of(feed, config.recipe, runtime, device, manifest)
