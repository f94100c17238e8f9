"""What can be shown of a run: all that its folder holds and, where the data is still there, pictures of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cifarfast.augment import augment, draw_batch, shrink
from cifarfast.config import SavedConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import Manifest, read_manifest
from cifarfast.device import open_device
from cifarfast.door import note
from cifarfast.errors import UserError
from cifarfast.evaluation import Evaluation, evaluate
from cifarfast.files import sha256_file
from cifarfast.loaders.base import Feed
from cifarfast.loaders.resident import ResidentLoader
from cifarfast.predictions import Predictions, read_predictions, write_predictions
from cifarfast.range_record import RANGE_NAME, LrRangeRecord, read_range
from cifarfast.runfolder import MODEL_NAME, Run, read_model, read_run
from cifarfast.runtime import Runtime
from cifarfast.setup import feed_of
from cifarfast.tta import Augmented

MISTAKES_SHOWN = 24
AUGMENTED_SHOWN = 24

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Absent:
    """What a run does not show, and why."""

    reason: str
    """Half a sentence."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test image that was taken for something else."""

    pixels: Pixels
    """(32, 32, 3)."""
    index: int
    """Its number in the test split."""
    taken_for: str
    """The class with the highest probability."""
    confidence: float
    """That probability, 0 to 1."""
    truth: str
    """The class that it is of."""
    truth_probability: float
    """What that class got."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training image as the network saw it."""

    pixels: Pixels
    """(S, S, 3), S as the recipe has it for the first epoch."""
    name: str
    """Its class."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a report of one run is made of."""

    run: Run
    """Configuration, epochs, summary."""
    kind: str
    """`cifar10`, `custom`, `synthetic`, or `unknown` while neither a summary nor the data says so."""
    range_test: LrRangeRecord | Absent
    """The learning rate range test."""
    predictions: Predictions | Absent
    """What the network said about the test images."""
    mistakes: list[Mistake] | Absent
    """The most confidently misclassified test images."""
    augmented: list[Example] | Absent
    """The beginning of the first training batch."""


def gather(
    path: Path,
    *,
    data: Path | None = None,
    lr_range: Path | None = None,
    computing: Callable[[int], None] | None = None,
) -> Evidence:
    """Read a run folder, and the data that it was trained on where that is still there.

    Args:
        path: the run folder.
        data: where the data is now, by default where it was.
        lr_range: the folder of a range test, by default the run folder.
        computing: called with the number of test images before the network is asked about them, because the
            run did not keep what it said; it is kept then. None: the network is not asked.

    Raises:
        UserError: the folder holds no run, or a file in it is damaged.
    """
    run = read_run(path)
    config, folder = run.config, data or run.config.data
    manifest = _manifest(folder, config)
    range_test = _range_test(lr_range or path, asked=lr_range is not None)
    predictions = _predictions(run, folder, manifest, computing)
    if isinstance(manifest, Absent):
        mistakes: list[Mistake] | Absent = manifest
        augmented: list[Example] | Absent = manifest
    else:
        mistakes = predictions if isinstance(predictions, Absent) else _mistakes(config, folder, manifest, predictions)
        augmented = _augmented(run, folder, manifest)
    known = run.summary.data.kind if run.summary else None if isinstance(manifest, Absent) else manifest.kind
    return Evidence(
        run=run,
        kind=known or "unknown",
        range_test=range_test,
        predictions=predictions,
        mistakes=mistakes,
        augmented=augmented,
    )


def _manifest(folder: Path, config: SavedConfig) -> Manifest | Absent:
    """The data of a run, after its digests have been compared."""
    try:
        manifest = read_manifest(folder)
        for file, digest in ((manifest.train.file, config.train_sha256), (manifest.test.file, config.test_sha256)):
            if sha256_file(folder / file) != digest:
                return Absent(f"{folder / file} is not the data that this run was trained with")
    except (UserError, OSError):
        return Absent(f"the data is not at {folder} any more (--data names another place)")
    return manifest


def _range_test(folder: Path, *, asked: bool) -> LrRangeRecord | Absent:
    if (record := read_range(folder, hint="name another range test")) is not None:
        return record
    if asked:
        raise UserError(f"{folder} holds no range test ({RANGE_NAME} is missing): name the folder that find_lr printed")
    return Absent("there was none (python -m cifarfast.find_lr makes one, --lr-range shows it here)")


def _predictions(
    run: Run, folder: Path, manifest: Manifest | Absent, computing: Callable[[int], None] | None
) -> Predictions | Absent:
    kept = read_predictions(run.path)
    if kept is not None and run.rows and kept.epoch == run.rows[-1].epoch:
        return kept
    if not (run.path / MODEL_NAME).exists():
        return Absent("the run is unfinished")
    if isinstance(manifest, Absent):
        return Absent(f"the run did not keep what the network said, and {manifest.reason}")
    if computing is None or run.summary is None:
        return Absent("the run did not keep what the network said (python -m cifarfast.report asks it again)")
    feed = _feed(run.config, folder, manifest, train=False)
    computing(feed.count)
    said = _ask(run, feed)
    write_predictions(run.path, said.logits, said.labels, epoch=run.summary.epochs)
    return Predictions(said.logits.numpy(), said.labels.numpy(), run.summary.epochs)


def _ask(run: Run, feed: Feed) -> Evaluation:
    """What the network says about all test images that a run uses, as after its last epoch, but in fp32 on the CPU."""
    device = open_device(Runtime(device="cpu"), note)
    model = Augmented(device.place(read_model(run.path)), run.config.recipe.tta)
    mean, std = torch.tensor(run.config.mean), torch.tensor(run.config.std)
    with ResidentLoader(feed, device=device.target).epoch(0) as batches:
        return evaluate(model, batches, device, mean=mean, std=std)


def _mistakes(
    config: SavedConfig, folder: Path, manifest: Manifest, predictions: Predictions
) -> list[Mistake] | Absent:
    feed = _feed(config, folder, manifest, train=False)
    if len(predictions.labels) != feed.count:
        return Absent(f"{len(predictions.labels)} predictions are kept for {feed.count} test images")
    worst = predictions.worst(MISTAKES_SHOWN)
    chosen = feed.order(0)[worst]
    names, probabilities = config.class_names, predictions.probabilities
    return [
        Mistake(
            pixels=pixels,
            index=int(index),
            taken_for=names[predictions.predicted[place]],
            confidence=float(probabilities[place].max()),
            truth=names[predictions.labels[place]],
            truth_probability=float(probabilities[place, predictions.labels[place]]),
        )
        for pixels, index, place in zip(read_beton(feed.path, chosen).images, chosen, worst, strict=True)
    ]


def _augmented(run: Run, folder: Path, manifest: Manifest) -> list[Example] | Absent:
    """The beginning of the first batch of the first epoch, as the device makes it."""
    config = run.config
    if run.summary is not None and run.summary.runtime.effective.loader == "torchvision":
        return Absent("the torchvision loader augments in processes of its own, with draws of its own")
    recipe, feed = config.recipe, _feed(config, folder, manifest, train=True)
    indices = feed.order(0)[: recipe.batch_size]
    images, labels = read_beton(feed.path, indices[:AUGMENTED_SHOWN])
    draws = draw_batch(recipe.augmentation, indices, seed=config.seed, epoch=0, number=0)[:, : len(images)]
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    augmented = augment(batch, draws, mean, std, recipe.augmentation, torch.float32)
    seen = shrink(augmented, recipe.work(0).size).permute(0, 2, 3, 1)
    pixels = (255 * (seen * std + mean)).round().clamp(0, 255).to(torch.uint8).numpy()
    return [Example(pixels=p, name=config.class_names[label]) for p, label in zip(pixels, labels, strict=True)]


def _feed(config: SavedConfig, folder: Path, manifest: Manifest, *, train: bool) -> Feed:
    name, limit = ("train", config.train_images) if train else ("test", config.test_images)
    return feed_of(folder, manifest, name, config.recipe, limit, config.seed)
