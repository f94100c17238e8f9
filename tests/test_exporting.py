import copy
import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarfast import exporting
from cifarfast.errors import UserError
from cifarfast.exporting import Check, Program, check_onnx, export_run, to_onnx
from cifarfast.files import write_json
from cifarfast.loaders.base import Batch
from cifarfast.records import sealed
from cifarfast.runfolder import CONFIG_NAME, read_config, read_model
from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnxscript")),
    reason="the extra onnx is not installed",
)
IMAGES = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _expected(run: Path, images: torch.Tensor) -> torch.Tensor:
    config, model = read_config(run), read_model(run)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    with torch.no_grad():
        logits: torch.Tensor = model((images.float() / 255 - mean) / std)
    return logits


def _without_data(run: Path, folder: Path) -> Path:
    """A copy of the run whose data is not where it was."""
    copied = Path(shutil.copytree(run, folder / "run"))
    write_json(copied / CONFIG_NAME, sealed(replace(read_config(run), data=folder / "gone")))
    return copied


def test_the_program_says_what_the_network_says(trained: Path, tmp_path: Path) -> None:
    assert export_run(trained, tmp_path / "model.pt2") is None
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    program = torch.export.load(tmp_path / "model.pt2").module()
    for images in (IMAGES[:1], IMAGES):
        expected = _expected(trained, images)
        assert (program(images) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_where_nothing_can_be_written_is_said_first(trained: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "gone" / "model.pt2", trained / CONFIG_NAME / "model.pt2"):
        with pytest.raises(UserError, match="name a file in a folder that exists with --out"):
            export_run(trained, out)


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install 'cifarfast\[onnx\]'"):
        export_run(trained, tmp_path / "model.onnx", onnx=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def program(trained: Path) -> Program:
    config = read_config(trained)
    return Program(read_model(trained), config.mean, config.std).eval()


@pytest.fixture(scope="module")
def content(program: Program) -> bytes:
    return to_onnx(program)


@needs_onnx
def test_it_is_checked_on_the_test_images_of_the_run(
    trained: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    import onnxruntime

    monkeypatch.setattr(exporting, "to_onnx", lambda program: content)
    run = _without_data(trained, tmp_path)
    check = export_run(run, tmp_path / "model.onnx", onnx=True, data=data)
    assert check is not None
    assert (check.images, check.kind) == (10, "test images")
    assert 0 < check.difference < 1e-5 * check.largest
    assert capsys.readouterr().err == "asking onnxruntime and torch about 10 test images\n"
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for images in (IMAGES[:1], IMAGES):
        found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        expected = _expected(trained, images)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@needs_onnx
def test_without_the_data_it_is_checked_on_noise(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda program: content)
    run = _without_data(trained, tmp_path)
    check = export_run(run, tmp_path / "model.onnx", onnx=True)
    assert check is not None
    assert (check.images, check.kind) == (64, "images of noise")
    said = capsys.readouterr().err
    assert said.startswith("checking on noise, because the data of the run is not at hand: ")
    assert len(said.splitlines()) == 1


@needs_onnx
def test_other_data_is_refused(trained: Path, tmp_path: Path) -> None:
    convert(Synthetic.parse("synthetic:160,50"), tmp_path / "other")
    with pytest.raises(UserError, match="other test images than the run had"):
        export_run(trained, tmp_path / "model.onnx", onnx=True, data=tmp_path / "other")
    assert not (tmp_path / "model.onnx").exists()


@needs_onnx
def test_disagreement_is_seen_in_classes_and_in_logits(
    program: Program, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(changed: Program, images: torch.Tensor = IMAGES) -> Check:
        batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), np.arange(len(images)))
        return check_onnx(content, changed, "images", iter([batch, batch]))

    assert check(program).images == 10
    weight, changed = program.model.head.weight, copy.deepcopy(program)
    with torch.no_grad():
        changed.model.head.weight.copy_(weight * 1.01)
        with pytest.raises(UserError, match="sees 0 of 10 images as something else"):
            check(changed)
        changed.model.head.weight.copy_(-weight)
        with pytest.raises(UserError, match="sees 10 of 10 images as something else"):
            check(changed)
        monkeypatch.setattr(exporting, "TOLERANCE", 10.0)
        with pytest.raises(UserError, match="sees 10 of 10 images as something else"):
            check(changed)
        changed.model.head.weight.copy_(weight)
        changed.model.head.weight[program(IMAGES[:1]).argmax()] = torch.nan  # argmax takes it for the largest
        with pytest.raises(UserError, match=r"sees 0 of 2 images as something else .* up to nan off"):
            check(changed, IMAGES[:1])
