"""Everything that a run needs, built from what it was asked to do: data, device, loaders, network and step."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from cifarfast.augment import normalize
from cifarfast.config import RunConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import Manifest, check_folder, unchanged
from cifarfast.device import Device, open_device
from cifarfast.door import note
from cifarfast.errors import UserError
from cifarfast.fingerprint import Fingerprint, take_fingerprint
from cifarfast.loaders import open_loader
from cifarfast.loaders.base import Feed, Loader
from cifarfast.model import build_model
from cifarfast.networks import bfloat16, norm_gelu, tap_products, winograd
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.selection import taken_by_epoch
from cifarfast.step import TrainStep, compiled_part
from cifarfast.summary import Data, Effective, data_of

WHITENING_IMAGES = 1000
"""A million patches, for a covariance of 12 x 12 or 27 x 27."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all runs with one set of data and one runtime share, opened once however many there are."""

    data: Path
    """The converted folder."""
    runtime: Runtime
    """What was asked of the machine."""
    manifest: Manifest
    """What is in the folder."""
    device: Device
    """Where it runs."""
    fingerprint: Fingerprint
    """On what it runs."""
    steps: dict[Recipe, TrainStep] = field(default_factory=dict)
    """The step of the last run with each `compiled_part` of a recipe, for the next one to take over."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run that has not begun."""

    config: RunConfig
    """What was asked."""
    manifest: Manifest
    """The data."""
    device: Device
    """Where it runs."""
    fingerprint: Fingerprint
    """On what it runs."""
    train_loader: Loader
    """Training batches."""
    test_loader: Loader
    """Test batches."""
    step: TrainStep
    """The untrained network, its optimizer, and how they take a step."""

    def data(self) -> Data:
        """What of the data is in use."""
        return data_of(
            self.manifest,
            train_images=self.train_loader.feed.count,
            test_images=self.test_loader.feed.count,
            verified=self.config.verify,
        )

    def effective(self, *, compiled: bool) -> Effective:
        """What the runtime came to."""
        return Effective(
            device=self.device.target.type,
            compile=compiled,
            precision=self.device.amp_dtype or "fp32",
            channels_last=self.config.runtime.channels_last,
            loader=self.train_loader.name,
            workers=self.train_loader.workers,
            threads=torch.get_num_threads(),
            tf32=self.device.tf32,
            cudnn_benchmark=self.device.cudnn_benchmark,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            cuda_graphs=self.device.graphs is not None,
        )


def open_site(config: RunConfig, manifest: Manifest | None = None, *, keep_memory: bool = True) -> Site:
    """Check the data and open the device.

    Args:
        manifest: of the data, where it has been checked.
        keep_memory: as for `open_device`.

    Raises:
        UserError: the data or the device is unusable.
    """
    manifest = manifest or check_folder(config.data, full=config.verify)
    device = open_device(config.runtime, note, keep_memory=keep_memory)
    return Site(
        data=config.data,
        runtime=config.runtime,
        manifest=manifest,
        device=device,
        fingerprint=take_fingerprint(device),
    )


def set_up(config: RunConfig, site: Site | None = None) -> Setup:
    """Check the data, then build.

    Args:
        site: of earlier runs with the same data and runtime, none of which is under way. Data and device are not
            opened again, and a step that one of them compiled is taken over where it fits.

    Raises:
        UserError: the data, the device or a size is unusable.
        ValueError: the site is of other data or another runtime.
    """
    recipe, runtime, seed = config.recipe, config.runtime, config.seed
    if site is not None and (site.data, site.runtime) != (config.data, runtime):
        raise ValueError(f"this site is for {site.data} and {site.runtime}, not for {config.data} and {runtime}")
    manifest = site.manifest if site else check_folder(config.data, full=config.verify)
    train_feed = feed_of(config.data, manifest, "train", recipe, config.train_images, seed)
    test_feed = feed_of(config.data, manifest, "test", recipe, config.test_images, seed)
    site = site or open_site(config, manifest)
    device = site.device
    with unchanged(config.data, manifest):
        train_loader = loader_of(train_feed, recipe, runtime, device, manifest)
        test_loader = loader_of(test_feed, recipe, runtime, device, manifest)
        sample = _sample(train_feed, manifest) if recipe.whitening else None
    return Setup(
        config=config,
        manifest=manifest,
        device=device,
        fingerprint=site.fingerprint,
        train_loader=train_loader,
        test_loader=test_loader,
        step=_untrained(site, recipe, seed, sample, train_feed.images),
    )


def _untrained(site: Site, recipe: Recipe, seed: int, sample: torch.Tensor | None, images: int) -> TrainStep:
    """A step at its beginning: that of an earlier run where it fits, else a new one; whitened by `sample`."""
    model, manifest = build_model(recipe, seed=seed), site.manifest
    if sample is not None:
        model.whiten(sample)
    if step := site.steps.get(compiled_part(recipe)):
        step.reset(model, recipe, seed=seed)
        return step
    placed = site.device.place(model)
    if bfloat16.runs_on(site.device.target, site.device.compute_dtype):
        # In the first step it would be on a run's clock.
        winograd.compile_passes()
        if recipe.network == "convnet":
            norm_gelu.compile_passes()
            tap_products.compile_passes()
    step = TrainStep(placed, recipe, site.device, mean=manifest.mean, std=manifest.std, seed=seed, images=images)
    site.steps[compiled_part(recipe)] = step
    return step


def _sample(feed: Feed, manifest: Manifest) -> torch.Tensor:
    """Some normalised training images (N, 3, 32, 32), evenly spaced through those of a run."""
    of_run = replace(feed, train=False).order(0)
    chosen = np.linspace(0, len(of_run) - 1, min(len(of_run), WHITENING_IMAGES), dtype=np.int64)
    images = torch.from_numpy(read_beton(feed.path, of_run[chosen]).images)
    return normalize(images.permute(0, 3, 1, 2), torch.tensor(manifest.mean), torch.tensor(manifest.std), torch.float32)


def feed_of(folder: Path, manifest: Manifest, name: str, recipe: Recipe, limit: int | None, seed: int) -> Feed:
    """The images of a split that a run uses, in batches of the recipe's size; shuffled for `train`.

    Raises:
        UserError: the limit or the batch size does not fit the split.
    """
    split = manifest.split(name)
    if limit is not None and not 0 < limit <= split.images:
        raise UserError(f"--{name}-images must be between 1 and {split.images} for {folder}, not {limit}")
    count = limit or split.images
    share = recipe.hard_share if name == "train" else 1.0
    if name == "train" and recipe.batch_size > (of_epoch := taken_by_epoch(count, share)):
        raise UserError(
            f"--batch-size {recipe.batch_size} is more than the {of_epoch} training images of an epoch: lower it"
        )
    return Feed(
        path=folder / split.file,
        images=split.images,
        limit=limit,
        batch_size=recipe.batch_size,
        seed=seed,
        train=name == "train",
        share=share,
    )


def loader_of(feed: Feed, recipe: Recipe, runtime: Runtime, device: Device, manifest: Manifest) -> Loader:
    """The loader that a runtime asks for; where it augments, as the recipe says."""
    return open_loader(
        runtime.loader,
        feed,
        device=device.target,
        workers=runtime.workers,
        augmentation=recipe.augmentation if feed.train else None,
        mean=manifest.mean,
    )
