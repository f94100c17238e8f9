"""Whole runs, tiny: 160 synthetic images, batches of 16."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cifarfast
from cifarfast import NonFiniteError, Recipe, Runtime, UserError
from cifarfast.dataset.manifest import read_manifest
from cifarfast.predictions import read_predictions
from cifarfast.runfolder import Diverged, read_diverged, read_rows
from cifarfast.summary import Summary

TINY = Recipe(batch_size=16, epochs=2)
PLAIN = Runtime(device="cpu", loader="resident")


def fit(data: Path, out: Path, recipe: Recipe = TINY, runtime: Runtime = PLAIN, **limits: Any) -> Summary:
    return cifarfast.fit(recipe, runtime, data=data, out=out, seed=3, **limits)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("runs") / "first"
    return out, fit(data, out, runtime=replace(PLAIN, deterministic=True), train_images=64, test_images=40)


def test_what_a_run_leaves(run: tuple[Path, Summary], data: Path) -> None:
    out, summary = run
    assert {path.name for path in out.iterdir()} == {
        ".lock", "checkpoints", "config.json", "metrics.jsonl", "summary.json", "model.safetensors",
        "predictions.safetensors",
    }  # fmt: skip
    written = json.loads((out / "summary.json").read_text())
    assert (written["epochs"], written["steps"], written["seed"], written["schema"]) == (2, 8, 3, 1)
    assert written["recipe"]["batch_size"] == 16
    assert written["runtime"]["asked"]["loader"] == written["runtime"]["effective"]["loader"] == "resident"
    assert written["data"]["kind"] == "synthetic"
    assert written["data"]["train_sha256"] == read_manifest(data).train.sha256
    assert (written["data"]["train_images"], written["data"]["train_images_available"]) == (64, 160)
    assert (written["model_parameters"], written["flops_per_image"]["forward"]) == (6_573_130, 758_523_904)
    assert (written["target_met"], written["compile_seconds"], written["skipped_steps"]) == (None, None, 0)
    assert written["epoch_seconds"]["n"] == 1
    assert written["test_accuracy"] == summary.test_accuracy
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows] == [4, 8]
    assert rows[-1]["test_accuracy"] == summary.test_accuracy
    assert rows[-1]["lr"] == pytest.approx(0.0017)
    assert all(0 <= row["data_wait_percent"] <= 100 and row["images_per_second"] > 0 for row in rows)
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"] == written["recipe"]
    assert config["class_names"] == list(read_manifest(data).class_names)


def test_the_saved_weights_give_the_reported_accuracy(run: tuple[Path, Summary], data: Path) -> None:
    """Through plain torch: read the file, normalise, count right answers."""
    out, summary = run
    model = cifarfast.ResNet().eval()
    model.load_state_dict(load_file(out / "model.safetensors"))
    from cifarfast.dataset.beton import read_beton

    manifest, test = read_manifest(data), read_beton(data / "test.beton")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
    images = (torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        right = int((model(images).argmax(1) == torch.from_numpy(test.labels)).sum())
    assert right == round(summary.test_accuracy * 40)
    predictions = read_predictions(out)
    assert predictions is not None
    assert torch.equal(torch.from_numpy(predictions.labels), torch.from_numpy(test.labels))
    assert (predictions.epoch, int((predictions.predicted == predictions.labels).sum())) == (2, right)


def test_the_same_command_twice_gives_the_same_bits(run: tuple[Path, Summary], data: Path, tmp_path: Path) -> None:
    out, _ = run
    fit(data, tmp_path / "again", runtime=replace(PLAIN, deterministic=True), train_images=64, test_images=40)
    first, second = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


# Not importorskip: importing ffcv outside our loader sets torch to one thread, which changes the last bits.
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
def test_every_loader_trains_to_the_same_bits(run: tuple[Path, Summary], data: Path, tmp_path: Path) -> None:
    out, _ = run
    runtime = replace(PLAIN, loader="ffcv", deterministic=True)
    fit(data, tmp_path / "ffcv", runtime=runtime, train_images=64, test_images=40)
    first, second = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "ffcv"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=10, max_lr=0.002)
    summary = fit(data, tmp_path / "run", recipe, train_images=32, test_images=10)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert summary.train_accuracy > 0.4  # chance is 0.1


def test_divergence_stops_the_run_before_the_weights(data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, max_lr=1e30, div_factor=1.0)
    with pytest.raises(
        NonFiniteError, match=r"^training diverged at step \d+ \(epoch 1, learning rate 1e\+30\)"
    ) as stopped:
        fit(data, tmp_path / "run", recipe)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert read_diverged(tmp_path / "run") == Diverged(epochs=0, reason=str(stopped.value))


def test_an_epoch_that_ends_before_fp16_gives_up_is_divergence_too(data: Path, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", loader="resident", amp=True, amp_dtype="fp16")
    recipe = replace(TINY, network="convnet", width=4, dropout=0.0, max_lr=1e30, div_factor=1.0)
    with pytest.raises(NonFiniteError, match=r"^training diverged in epoch \d: its mean loss is .*nan on test images"):
        cifarfast.fit(recipe, runtime, data=data, out=tmp_path / "run", train_images=16, test_images=4)
    diverged = read_diverged(tmp_path / "run")
    assert diverged is not None
    assert diverged.epochs == len(read_rows(tmp_path / "run"))


def test_the_torchvision_loader_trains(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    runtime = replace(PLAIN, loader="torchvision", workers=0)
    summary = fit(data, tmp_path / "run", replace(TINY, epochs=1), runtime, train_images=32, test_images=16)
    assert (summary.runtime.effective.loader, summary.steps) == ("torchvision", 2)


@pytest.mark.parametrize(
    ("recipe", "limits", "words"),
    [
        (replace(TINY, batch_size=512), {}, "--batch-size 512 is more than the 160 training images"),
        (TINY, {"train_images": 161}, "--train-images must be between 1 and 160"),
        (TINY, {"test_images": 0}, "--test-images must be between 1 and 40"),
        (TINY, {"train_images": 8}, "--batch-size 16 is more than the 8 training images"),
    ],
)
def test_a_wrong_size_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, recipe: Recipe, limits: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        fit(data, tmp_path / "run", recipe, **limits)
    assert not (tmp_path / "run").exists()
