import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cifarfast.evaluate import main
from cifarfast.files import write_json
from cifarfast.records import sealed
from cifarfast.runfolder import CONFIG_NAME, MODEL_NAME, read_config
from cifarfast.scoring import evaluate_run
from tests.commands import refusal


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_table(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(trained)])
    shown, found = capsys.readouterr(), evaluate_run(trained)
    assert shown.err == ""
    *table, data, last = shown.out.splitlines()
    for each in found.classes:
        (line,) = (line for line in table if each.name in line)
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        share = f"{each.right / each.images:.2%}" if each.images else "-"
        loss = "-" if each.loss is None else f"{each.loss:.4f}"
        assert cells == [each.name, str(each.images), str(each.right), share, loss]
    assert data == "data: synthetic, 10 test images, in fp32 on cpu"
    assert last == f"test accuracy {found.accuracy:.2%}, test-time augmentation: none"


def test_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(trained), "--tta", "flip", "--device", "cpu", "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out) == asdict(evaluate_run(trained, tta="flip"))
    assert shown.err == ""


def test_another_number_than_that_of_training_is_said(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate_run(trained)

    def said(**changes: Any) -> str:
        monkeypatch.setattr("cifarfast.scoring.evaluate_run", lambda *_, **__: replace(found, **changes))
        main([str(trained), "--json"])
        return capsys.readouterr().err

    assert said(right=7, recorded_right=8).startswith("training counted 8 right, not 7:")
    assert said(right=7, recorded_right=7) == ""
    assert said(right=7, recorded_right=None) == ""


@pytest.mark.usefixtures("restored_sigterm")
def test_a_mistake_is_one_line_and_exit_2(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice" in refusal(main, capsys, run, "--tta", "twice")
    assert f"{tmp_path} holds no run" in refusal(main, capsys, tmp_path)
    assert "to_ffcv --out nowhere" in refusal(main, capsys, run, "--data", "nowhere")
    assert "--device mps: this machine" in refusal(main, capsys, run, "--device", "mps")
    weights = bytearray((run / MODEL_NAME).read_bytes())
    weights[-1] ^= 1
    (run / MODEL_NAME).write_bytes(weights)
    assert f"{MODEL_NAME} is damaged" in refusal(main, capsys, run)
    (run / MODEL_NAME).unlink()
    assert f"has no {MODEL_NAME} yet" in refusal(main, capsys, run)
    config = read_config(run)
    names = ("\x1b[2J", *config.class_names[1:])
    write_json(run / CONFIG_NAME, sealed(replace(config, class_names=names)))
    assert f"{CONFIG_NAME} is damaged" in refusal(main, capsys, run)
