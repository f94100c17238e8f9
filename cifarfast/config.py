"""What a run is asked to do: the flags that `train` and `find_lr` share, and config.json."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from cifarfast.dataset.manifest import ClassNames, Manifest, Sha256, UnitInterval
from cifarfast.metrics import SCHEMA
from cifarfast.range_test import Sweep
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime

CHECKPOINT_MINUTES = 10.0
"""Longest time between two checkpoints, unless another is asked for."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Recipe, runtime, seed and data: with the same ones a run is the same."""

    data: Path = Path("data/cifar10")
    """Converted folder, made by python -m data_prep.to_ffcv."""
    seed: int = 0
    """Origin of the initialisation, the order, the augmentation and the dropout."""
    train_images: int | None = None
    """Train on so many images only, evenly spaced through the split."""
    test_images: int | None = None
    """Evaluate on so many images only, likewise."""
    verify: bool = True
    """Hold the data against its SHA-256 digests first; --no-verify looks at sizes only."""
    recipe: Recipe = field(default_factory=Recipe)
    """What is learned."""
    sweep: Annotated[Sweep | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    """The range test that finds the recipe's max_lr before training; null where that was given."""
    runtime: Runtime = field(default_factory=Runtime)
    """How it is executed."""


@dataclass(frozen=True, kw_only=True)
class SavedConfig(RunConfig):
    """The whole of config.json: what was asked, and what one must know of the data to use the network without it."""

    schema: int = SCHEMA
    """Version of this layout."""
    started: str | None = None
    """When the run was first started: UTC time, ISO 8601; null in runs that are older than this field."""
    class_names: ClassNames
    """Names of the labels 0 to 9."""
    mean: tuple[UnitInterval, UnitInterval, UnitInterval]
    """Mean of each channel of the training split, on the scale 0 to 1: what images are normalised with."""
    std: tuple[UnitInterval, UnitInterval, UnitInterval]
    """Standard deviation of each channel, likewise."""
    train_sha256: Sha256
    """Digest of train.beton."""
    test_sha256: Sha256
    """Digest of test.beton."""


def run_config(source: RunConfig) -> RunConfig:
    """The fields of a `RunConfig` alone, out of a subclass with more of them."""
    return RunConfig(**{field.name: getattr(source, field.name) for field in fields(RunConfig)})


def saved_config(config: RunConfig, manifest: Manifest, *, started: str | None = None) -> SavedConfig:
    """What a run with this data, first started then, leaves as config.json."""
    return SavedConfig(
        **vars(run_config(config)),
        started=started,
        class_names=manifest.class_names,
        mean=manifest.mean,
        std=manifest.std,
        train_sha256=manifest.train.sha256,
        test_sha256=manifest.test.sha256,
    )
