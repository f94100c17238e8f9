import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifarfast import guessing
from cifarfast.errors import UserError
from cifarfast.guessing import guess_files
from cifarfast.runfolder import MODEL_NAME, RunFolder, read_config, read_model

RANDOM = np.random.default_rng(0)


def _images(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return paths


def _probabilities(run: Path, path: Path) -> dict[str, float]:
    """Of one image alone, from its pixels on."""
    config, model = read_config(run), read_model(run)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = model((pixels.float() / 255 - mean) / std)[0].double().softmax(0).tolist()
    return dict(zip(config.class_names, found, strict=True))


def test_probabilities_are_those_of_each_image_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessing, "_BATCH", 2)
    paths = _images(tmp_path, 3)
    found, failed = guess_files(trained, paths, top=10)
    assert failed == []
    assert [path for path, _ in found] == paths
    for path, guesses in found:
        expected = _probabilities(trained, path)
        assert max(expected.values()) < 0.9  # nothing is certain after three small steps
        assert {guess.name: guess.probability for guess in guesses} == pytest.approx(expected, rel=1e-4)
        values = [guess.probability for guess in guesses]
        assert values == sorted(values, reverse=True)


def test_the_most_probable_are_named(trained: Path, tmp_path: Path) -> None:
    (path,) = _images(tmp_path, 1)
    expected = sorted(_probabilities(trained, path).items(), key=lambda item: -item[1])
    ((_, guesses),), _ = guess_files(trained, [path])
    assert [guess.name for guess in guesses] == [name for name, _ in expected[:3]]


def test_the_rest_is_answered_for(trained: Path, tmp_path: Path) -> None:
    first, second = _images(tmp_path, 2)
    (tmp_path / "text").write_text("no image")
    found, failed = guess_files(trained, [first, tmp_path / "text", tmp_path, second])
    assert [path for path, _ in found] == [first, second]
    assert [str(error).partition(" cannot be read")[0] for error in failed] == [f"{tmp_path / 'text'}", f"{tmp_path}"]
    assert guess_files(trained, [tmp_path / "missing"])[0] == []


def test_a_network_that_overflows_is_named(trained: Path, tmp_path: Path) -> None:
    run, model = Path(shutil.copytree(trained, tmp_path / "run")), read_model(trained)
    with torch.no_grad():
        model.head.weight.fill_(torch.inf)
    with RunFolder(run, resume=True) as folder:
        folder.write_model(model)
    with pytest.raises(UserError, match=f"{MODEL_NAME} answers with numbers that are not finite"):
        guess_files(run, _images(tmp_path, 1))
