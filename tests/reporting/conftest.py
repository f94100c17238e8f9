"""Run folders as training leaves them, without training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cifarfast.config import RunConfig, SavedConfig, saved_config
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import read_manifest
from cifarfast.metrics import EpochRow
from cifarfast.model import build_model
from cifarfast.predictions import write_predictions
from cifarfast.range_record import LrRangeRecord
from cifarfast.range_test import Sweep, measure
from cifarfast.recipe import Recipe
from cifarfast.runfolder import RunFolder
from cifarfast.schedule import one_cycle
from cifarfast.summary import data_of
from tests.test_runfolder import row
from tests.test_summary import summary

EPOCHS = 3
RECIPE = Recipe(batch_size=16, epochs=EPOCHS)
STEPS = 160 // 16

MakeRun = Callable[..., Path]


def rows(accuracy: float = 0.6) -> list[EpochRow]:
    """Three epochs in which accuracy rises by a tenth each, up to `accuracy`."""
    schedule = one_cycle(RECIPE, STEPS)
    return [
        replace(
            row(epoch, accuracy=accuracy - 0.1 * (EPOCHS - epoch), epoch_seconds=9.0 + epoch),
            steps=STEPS * epoch,
            lr=schedule.lr(STEPS * epoch - 1),
        )
        for epoch in range(1, EPOCHS + 1)
    ]


def range_record() -> LrRangeRecord:
    """A range test in which the loss falls all the way."""
    known = summary(rows())
    return LrRangeRecord(
        result=measure(lambda lr: 2 - lr, Sweep(num_iter=8)),
        recipe=RECIPE,
        seed=0,
        runtime=known.runtime,
        fingerprint=known.fingerprint,
        data=known.data,
        started=known.started,
        total_seconds=1.0,
    )


@pytest.fixture(scope="session")
def make_run(data: Path) -> MakeRun:
    """Makes a run folder on the synthetic data; whatever `config` names is another."""
    manifest = read_manifest(data)
    labels = torch.from_numpy(read_beton(data / "test.beton").labels)
    logits = torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(3))
    model = build_model(Recipe(dropout=0.0), seed=0)

    def make(
        folder: Path,
        *,
        accuracy: float = 0.6,
        finished: bool = True,
        predictions: bool = True,
        done: int = EPOCHS,
        kind: str = "synthetic",
        **config: Any,
    ) -> Path:
        saved: SavedConfig = replace(saved_config(RunConfig(data=data, recipe=RECIPE), manifest), **config)
        epochs = rows(accuracy)[:done]
        with RunFolder(folder) as out:
            out.write_config(saved)
            out.rewrite(epochs)
            if finished:
                out.write_model(model)
                used = data_of(manifest, train_images=160, test_images=40, verified=True)
                out.write_summary(
                    replace(summary(epochs), recipe=saved.recipe, seed=saved.seed, data=replace(used, kind=kind))
                )
        if predictions:
            write_predictions(folder, logits, labels, epoch=EPOCHS)
        return folder

    return make


@pytest.fixture(scope="session")
def run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with predictions, for reading only."""
    return make_run(tmp_path_factory.mktemp("runs") / "finished")
