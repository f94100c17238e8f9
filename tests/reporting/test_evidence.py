import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import read_manifest
from cifarfast.device import open_device
from cifarfast.errors import UserError
from cifarfast.files import write_json
from cifarfast.loaders.base import Feed
from cifarfast.loaders.resident import ResidentLoader
from cifarfast.model import build_model
from cifarfast.predictions import read_predictions
from cifarfast.range_record import RANGE_NAME
from cifarfast.recipe import Recipe, Tta
from cifarfast.records import sealed
from cifarfast.reporting.evidence import Absent, gather
from cifarfast.runfolder import read_summary
from cifarfast.runtime import Runtime
from cifarfast.step import TrainStep
from cifarfast.summary import Effective
from tests.reporting.conftest import RECIPE, MakeRun, range_record


def reason(found: object) -> str:
    assert isinstance(found, Absent), found
    return found.reason


def test_the_mistakes_are_the_images_that_were_mistaken(run: Path, data: Path) -> None:
    found = gather(run)
    assert not isinstance(found.mistakes, Absent)
    test, kept = read_beton(data / "test.beton"), read_predictions(run)
    assert kept is not None
    names = read_manifest(data).class_names
    for mistake in found.mistakes:
        logits = torch.from_numpy(kept.logits[mistake.index]).double()
        assert np.array_equal(mistake.pixels, test.images[mistake.index])
        assert mistake.truth == names[test.labels[mistake.index]] != mistake.taken_for == names[int(logits.argmax())]
        assert mistake.confidence == pytest.approx(float(logits.softmax(0).max()))
        assert mistake.truth_probability == pytest.approx(float(logits.softmax(0)[test.labels[mistake.index]]))
    confidences = [mistake.confidence for mistake in found.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    assert len(confidences) == 24


def test_the_augmented_images_are_what_training_sees(run: Path, data: Path) -> None:
    found = gather(run)
    assert not isinstance(found.augmented, Absent)
    manifest, device = read_manifest(data), open_device(Runtime(device="cpu"), print)
    feed = Feed(path=data / "train.beton", images=160, batch_size=16, seed=0, train=True)
    step = TrainStep(
        build_model(Recipe(dropout=0.0), seed=0), RECIPE, device, mean=manifest.mean, std=manifest.std, seed=0
    )
    with ResidentLoader(feed, device=device.target).epoch(0) as batches:
        batch = next(batches)
    inputs, _ = step.inputs(batch, augmented=False, epoch=0, number=0)
    mean, std = torch.tensor(manifest.mean), torch.tensor(manifest.std)
    seen = (255 * (inputs.permute(0, 2, 3, 1) * std + mean)).round().to(torch.uint8)
    assert [example.name for example in found.augmented] == [manifest.class_names[label] for label in batch.labels]
    assert all(np.array_equal(e.pixels, pixels) for e, pixels in zip(found.augmented, seen.numpy(), strict=True))


def test_a_part_of_the_test_images_is_evenly_spaced(make_run: MakeRun, data: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    found = gather(make_run(tmp_path / "run", predictions=False, test_images=8), computing=asked.append)
    assert asked == [8]
    assert not isinstance(found.mistakes, Absent)
    assert {mistake.index for mistake in found.mistakes} <= {0, 5, 10, 15, 20, 25, 30, 35}


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_predictions_are_computed_once_and_kept(tta: Tta, make_run: MakeRun, data: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    run = make_run(tmp_path / "run", predictions=False, recipe=replace(RECIPE, tta=tta))
    assert "asks it again" in reason(gather(run).predictions)
    found = gather(run, computing=asked.append).predictions
    assert not isinstance(found, Absent)
    manifest, test = read_manifest(data), read_beton(data / "test.beton")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
    images = (torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        network = build_model(Recipe(dropout=0.0), seed=0).eval()
        expected = network(images) if tta == "none" else (network(images) + network(images.flip(3))) / 2
    assert np.allclose(found.logits, expected.numpy(), atol=1e-5)
    assert found.labels.tolist() == test.labels.tolist()
    again = gather(run, computing=asked.append).predictions
    assert not isinstance(again, Absent)
    assert np.array_equal(again.logits, found.logits)
    assert asked == [40]


def test_predictions_of_an_earlier_epoch_are_not_taken_for_the_last(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False, done=2)  # its predictions are of epoch 3
    assert reason(gather(run).predictions) == reason(gather(run).mistakes) == "the run is unfinished"


def test_without_the_data_there_are_no_pictures_but_all_the_rest(make_run: MakeRun, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    run = make_run(tmp_path / "run", data=tmp_path / "gone")
    found = gather(run)
    assert "the data is not at" in reason(found.mistakes)
    assert "the data is not at" in reason(found.augmented)
    assert not isinstance(found.predictions, Absent)
    assert found.kind == "synthetic"
    assert not isinstance(gather(run, data=moved).mistakes, Absent)
    (moved / "train.beton").write_bytes(b"other")
    assert "is not the data that this run was trained with" in reason(gather(run, data=moved).mistakes)
    assert "is not at" in reason(gather(make_run(tmp_path / "other", predictions=False, data=tmp_path)).predictions)


def test_the_kind_of_an_unfinished_run_is_that_of_its_data(make_run: MakeRun, tmp_path: Path) -> None:
    assert gather(make_run(tmp_path / "known", finished=False)).kind == "synthetic"
    assert gather(make_run(tmp_path / "unknown", finished=False, data=tmp_path)).kind == "unknown"


def test_a_loader_that_augments_is_not_imitated(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    known = read_summary(run)
    assert known is not None
    effective: Effective = replace(known.runtime.effective, loader="torchvision")
    write_json(run / "summary.json", sealed(replace(known, runtime=replace(known.runtime, effective=effective))))
    assert "torchvision" in reason(gather(run).augmented)


def test_a_range_test_is_shown_from_the_run_or_from_where_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "there was none" in reason(gather(run).range_test)
    with pytest.raises(UserError, match=r"holds no range test \(lr_range\.json is missing\)"):
        gather(run, lr_range=tmp_path)
    record = range_record()
    write_json(tmp_path / RANGE_NAME, sealed(record))
    assert gather(run, lr_range=tmp_path).range_test == record
    shutil.move(tmp_path / RANGE_NAME, run / RANGE_NAME)
    assert gather(run).range_test == record
    (run / RANGE_NAME).write_text("{}")
    with pytest.raises(UserError, match=r"lr_range\.json is damaged"):
        gather(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        gather(tmp_path)
