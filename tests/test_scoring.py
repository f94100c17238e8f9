import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cifarfast import Recipe, Runtime, UserError, fit
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import read_manifest
from cifarfast.files import write_json
from cifarfast.recipe import Tta
from cifarfast.records import sealed
from cifarfast.runfolder import CONFIG_NAME, MODEL_NAME, RunFolder, read_config, read_model, read_summary
from cifarfast.scoring import RunScore, evaluate_run
from cifarfast.tta import augmented_logits
from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic


def _copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def _said(run: Path, tta: Tta) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the 10 test images of the run, without a loader: all at once, from the file."""
    config, model = read_config(run), read_model(run)
    test, manifest = read_beton(config.data / "test.beton"), read_manifest(config.data)
    chosen = torch.arange(10) * 40 // 10
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
    images = (torch.from_numpy(test.images)[chosen].permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        return augmented_logits(model, images, tta), torch.from_numpy(test.labels)[chosen]


def _check_reported(run: Path, found: RunScore, images: int = 10) -> None:
    summary = read_summary(run)
    assert summary is not None
    assert (found.accuracy, found.loss, found.images) == (summary.test_accuracy, summary.test_loss, images)
    assert found.right == found.recorded_right == round(images * summary.test_accuracy)
    assert found.precision == summary.runtime.effective.precision


def test_the_number_is_the_one_that_training_reported(trained: Path) -> None:
    found = evaluate_run(trained)
    _check_reported(trained, found)
    assert (found.data, found.device, found.tta) == ("synthetic", "cpu", "none")


def test_it_is_so_in_another_precision_and_layout(data: Path, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", loader="resident", amp=True, amp_dtype="bf16", channels_last=False)
    fit(Recipe(batch_size=2, epochs=1), runtime, data=data, out=tmp_path / "run", train_images=2, test_images=3)
    found = evaluate_run(tmp_path / "run")
    _check_reported(tmp_path / "run", found, images=3)
    assert found.precision == "bf16"


def test_it_is_so_where_the_loader_of_the_run_is_not_installed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cifarfast.loaders.ffcv_loader", None)
    run = _copied(trained, tmp_path)
    config = read_config(run)
    write_json(run / CONFIG_NAME, sealed(replace(config, runtime=replace(config.runtime, loader="ffcv"))))
    _check_reported(run, evaluate_run(run))


def test_the_precision_that_was_in_effect_is_taken_without_a_probe(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _copied(trained, tmp_path)
    config = read_config(run)
    write_json(run / CONFIG_NAME, sealed(replace(config, runtime=replace(config.runtime, amp=True))))
    monkeypatch.setattr("cifarfast.device.probe_bf16", lambda: 2.0)
    _check_reported(run, evaluate_run(run))  # in fp32, as its summary says


@pytest.mark.parametrize("tta", ["none", "flip", "flip+shift", "selective"])
def test_figures_are_those_of_the_images_one_by_one(trained: Path, tta: Tta) -> None:
    found, (logits, labels) = evaluate_run(trained, tta=tta), _said(trained, tta)
    right, losses = logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none")
    assert (found.tta, found.right) == (tta, int(right.sum()))
    assert (found.recorded_right is None) == (tta != "none")  # it is another figure
    assert found.accuracy == pytest.approx(float(right.float().mean()))
    assert found.loss == pytest.approx(float(losses.mean()), rel=1e-4)
    assert 0 in [each.images for each in found.classes]  # the data is synthetic, and few
    assert [each.name for each in found.classes] == list(read_config(trained).class_names)
    for label, each in enumerate(found.classes):
        assert (each.images, each.right) == (int((labels == label).sum()), int(right[labels == label].sum()))
        if each.images:
            assert each.loss == pytest.approx(float(losses[labels == label].mean()), rel=1e-4)
        else:
            assert each.loss is None


def test_data_that_was_moved_is_named_and_other_data_refused(trained: Path, data: Path, tmp_path: Path) -> None:
    run = _copied(trained, tmp_path)
    write_json(run / CONFIG_NAME, sealed(replace(read_config(run), data=tmp_path / "gone")))
    with pytest.raises(UserError, match="gone"):
        evaluate_run(run)
    _check_reported(run, evaluate_run(run, data=data))
    convert(Synthetic.parse("synthetic:160,50"), tmp_path / "other")
    with pytest.raises(UserError, match="other test images than the run had"):
        evaluate_run(run, data=tmp_path / "other")


def test_a_network_that_overflows_is_named(trained: Path, tmp_path: Path) -> None:
    run, model = _copied(trained, tmp_path), read_model(trained)
    with torch.no_grad():
        model.head.weight.fill_(torch.inf)
    with RunFolder(run, resume=True) as folder:
        folder.write_model(model)
    with pytest.raises(UserError, match=f"{MODEL_NAME} answers with numbers that are not finite"):
        evaluate_run(run)


def test_nothing_in_a_run_folder_executes(trained: Path, tmp_path: Path) -> None:
    run, canary = _copied(trained, tmp_path), tmp_path / "canary"

    class Planted:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (canary,)

    (run / MODEL_NAME).write_bytes(pickle.dumps(Planted()))
    with pytest.raises(UserError, match=MODEL_NAME):
        evaluate_run(run)
    assert not canary.exists()
    pickle.loads((run / MODEL_NAME).read_bytes())
    assert canary.exists()  # it would have shown
