"""One epoch of bytes to batches, as training reads them: thrown away, and up to the input of the network."""

from collections import deque
from collections.abc import Callable

import pytest

from bench.contest import Entrant
from bench.lab import Lab
from bench.variants import check_workers, every_loader
from cifarfast.loaders import Feed, Loader, LoaderName, open_loader
from cifarfast.model import build_model
from cifarfast.recipe import Augmentation, Recipe
from cifarfast.step import TrainStep

QUICK_IMAGES = 2048


@pytest.mark.contest(group="loaders", quick=5, full=5, baseline="torchvision-2")
@every_loader
def bench_raw(lab: Lab, loader: LoaderName, workers: int | None) -> Entrant:
    opened = _open(lab, loader, workers, augmentation=None)

    def once() -> None:
        with opened.epoch(0) as batches:
            deque(batches, maxlen=0)

    return _entrant(opened, once)


@pytest.mark.contest(group="loaders-augmented", quick=5, full=5, baseline="torchvision-2")
@every_loader
def bench_augmented(lab: Lab, loader: LoaderName, workers: int | None) -> Entrant:
    """What the loader does not do itself is done on the device, eagerly."""
    opened = _open(lab, loader, workers, augmentation=Augmentation())
    recipe = Recipe(batch_size=opened.feed.batch_size, dropout=0.0)  # so that no dropout masks are drawn
    model = lab.device.place(build_model(recipe, seed=0))
    step = TrainStep(model, recipe, lab.device, mean=lab.manifest.mean, std=lab.manifest.std, seed=0)

    def once() -> None:
        with opened.epoch(0) as batches:
            for number, batch in enumerate(batches):
                step.inputs(batch, augmented=opened.augments, epoch=0, number=number)

    return _entrant(opened, once)


def _open(lab: Lab, name: LoaderName, workers: int | None, augmentation: Augmentation | None) -> Loader:
    split = lab.manifest.train
    count = min(split.images, QUICK_IMAGES) if lab.profile == "quick" else split.images
    feed = Feed(
        path=lab.folder / split.file,
        images=split.images,
        limit=count,
        batch_size=min(Recipe().batch_size, count),
        train=True,
    )
    target, mean = lab.device.target, lab.manifest.mean
    loader = open_loader(name, feed, device=target, workers=workers, augmentation=augmentation, mean=mean)
    check_workers(loader, workers)
    return loader


def _entrant(loader: Loader, once: Callable[[], None]) -> Entrant:
    size = loader.feed.batch_size
    facts = {"workers": loader.workers, "batch_size": size}
    return Entrant(once=once, work=loader.feed.batches() * size, warm_up=1, facts=facts)
