import shutil
import sys
from pathlib import Path

import pytest

from cifarfast.export import main
from cifarfast.runfolder import MODEL_NAME
from tests.commands import command, refusal


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_program_goes_into_the_run_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run)])
    assert capsys.readouterr() == (f"saved {run / 'model.pt2'}\n", "")
    assert (run / "model.pt2").exists()


def test_onnx_goes_where_it_is_asked_to(run: Path, tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    done = command("cifarfast.export", run, "--onnx", "--out", "my.onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "asking onnxruntime and torch about 10 test images\n")
    first, saved = done.stdout.splitlines()
    assert first.startswith("the same classes as torch for 10 test images, logits (up to ")
    assert saved == "saved my.onnx"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "my.onnx"}
    assert not list(run.glob("model.[po]*"))


@pytest.mark.usefixtures("restored_sigterm")
def test_a_mistake_is_one_line_and_exit_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nowhere holds no run" in refusal(main, capsys, "nowhere")
    assert "--data here is for the check of --onnx" in refusal(main, capsys, run, "--data", "here")
    assert "cannot write gone/model.pt2" in refusal(main, capsys, run, "--out", "gone/model.pt2")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert "pip install 'cifarfast[onnx]'" in refusal(main, capsys, run, "--onnx")
    (run / MODEL_NAME).unlink()
    assert f"has no {MODEL_NAME} yet" in refusal(main, capsys, run)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
