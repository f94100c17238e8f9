import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifarfast import RECIPES, Runtime, UserError, fit, predict
from cifarfast.evaluate import main
from cifarfast.files import write_json
from cifarfast.records import sealed
from cifarfast.runfolder import MODEL_NAME, SUMMARY_NAME, read_config, read_model, read_summary
from cifarfast.scoring import evaluate_run
from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "run"
    recipe = replace(RECIPES["reference"], epochs=1, batch_size=32)
    runtime = Runtime(device="cpu", loader="resident")
    fit(recipe, runtime, data=data, out=out, train_images=64, test_images=30)
    return out


def test_the_number_is_the_one_that_training_reported(run: Path) -> None:
    summary, found = read_summary(run), evaluate_run(run)
    assert summary is not None
    assert (found.accuracy, found.loss, found.images) == (summary.test_accuracy, summary.test_loss, 30)
    assert found.recorded_right == found.right == sum(each.right for each in found.classes)
    assert sum(each.images for each in found.classes) == 30
    weighted = sum((each.loss or 0) * each.images for each in found.classes) / 30
    assert weighted == pytest.approx(found.loss, rel=1e-5)


def test_another_number_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    main([str(copy), "--json"])
    same, summary = capsys.readouterr(), read_summary(copy)
    right = json.loads(same.out)["right"]
    assert same.err == ""
    assert summary is not None
    write_json(copy / SUMMARY_NAME, sealed(replace(summary, test_accuracy=(right + 1) / 30)))
    main([str(copy)])
    assert f"training counted {right + 1} right, not {right}:" in capsys.readouterr().err


def test_other_data_is_refused(run: Path, tmp_path: Path) -> None:
    convert(Synthetic.parse("synthetic:160,50"), tmp_path / "data")
    with pytest.raises(UserError, match="other test images than the run had"):
        evaluate_run(run, data=tmp_path / "data")


def test_nothing_in_a_run_folder_executes(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    canary = tmp_path / "canary"

    class Planted:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (canary,)

    (copy / MODEL_NAME).write_bytes(pickle.dumps(Planted()))
    with pytest.raises(UserError, match=MODEL_NAME):
        evaluate_run(copy)
    assert not canary.exists()
    pickle.loads((copy / MODEL_NAME).read_bytes())
    assert canary.exists()  # it would have shown


def test_predicting_answers_for_the_rest(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (50, 40), colour).save(tmp_path / name)
    files = [tmp_path / "red.png", tmp_path / "missing\x1b[31m.png", tmp_path / "blue.png"]
    with pytest.raises(SystemExit) as leaving:
        predict.main([str(run), *map(str, files), "--top", "10", "--json"])
    said = capsys.readouterr()
    assert leaving.value.code == 2
    assert len(said.err.splitlines()) == 1
    assert "missing\\x1b[31m.png" in said.err
    answers = json.loads(said.out)
    assert [answer["file"] for answer in answers] == [str(files[0]), str(files[2])]
    config, model = read_config(run), read_model(run)
    for answer, rgb in zip(answers, ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), strict=True):
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        image = ((torch.tensor(rgb) - mean) / std).view(1, 3, 1, 1).expand(1, 3, 32, 32)
        expected = model(image).softmax(1)[0].tolist()
        found = [answer["classes"][name] for name in config.class_names]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
