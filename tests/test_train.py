import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import cifarfast
from cifarfast import door
from cifarfast.recipe import Augmentation, Recipe
from cifarfast.runtime import Runtime
from cifarfast.train import Arguments, main, parse_arguments
from tests.commands import ROOT, command, refusal, refused

SMALL = ("--batch-size", "16", "--epochs", "1", "--train-images", "32", "--test-images", "16", "--device", "cpu",
         "--no-report")  # fmt: skip
FLAGS = {
    "--data", "--out", "--seed", "--train-images", "--test-images", "--verify", "--summary", "--resume",
    "--checkpoint-minutes", "--tensorboard", "--report", "--recipe", "--target-accuracy", "--tta", "--network",
    "--whitening", "--norm-scale", "--mirrored", "--width", "--squeeze-excitation", "--epochs", "--batch-size",
    "--ghost-batch", "--hard-share", "--low-resolution", "--low-resolution-share", "--optimizer",
    "--max-lr", "--head-lr", "--bias-lr", "--div-factor", "--final-div-factor", "--pct-start", "--anneal",
    "--cycle-momentum", "--base-momentum", "--max-momentum", "--weight-decay",
    "--sharpness-radius", "--sharpness-share", "--label-smoothing", "--dropout",
    "--crop-padding", "--padding-mode", "--flip-probability", "--alternate-flip", "--cutout-size",
    "--cutout-probability", "--device", "--compile", "--amp", "--amp-dtype", "--channels-last", "--loader",
    "--workers", "--deterministic", "--cuda-graphs",
}  # fmt: skip


def test_the_command_line_is_frozen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = set(re.findall(r"(?<!\S)--(?!no-)[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert shown == FLAGS | {"--help"}


def test_every_flag_reaches_its_field() -> None:
    line = (
        "--data d --out o --checkpoint-minutes 3 --tensorboard --no-report --seed 4 "
        "--train-images 5 --test-images 6 --no-verify "
        "--recipe reference --tta flip --network convnet --width 8 --squeeze-excitation --epochs 7 "
        "--low-resolution 20 --low-resolution-share 0.5 --optimizer muon --max-lr 0.1 --head-lr 0.2 --bias-lr 0.3 "
        "--anneal linear --no-cycle-momentum --dropout 0 --padding-mode zero --alternate-flip --cutout-probability 0.3 "
        "--device cpu --compile --amp --amp-dtype bf16 --no-channels-last --loader resident --workers 2 "
        "--deterministic --no-cuda-graphs"
    )
    parsed = parse_arguments(line.split())
    assert parsed == Arguments(
        data=Path("d"),
        out=Path("o"),
        checkpoint_minutes=3.0,
        tensorboard=True,
        report=False,
        seed=4,
        train_images=5,
        test_images=6,
        verify=False,
        recipe=Recipe(
            tta="flip",
            network="convnet",
            width=8,
            squeeze_excitation=True,
            epochs=7,
            low_resolution=20,
            low_resolution_share=0.5,
            optimizer="muon",
            max_lr=0.1,
            head_lr=0.2,
            bias_lr=0.3,
            anneal="linear",
            cycle_momentum=False,
            dropout=0.0,
            augmentation=Augmentation(crop_padding=2, alternate_flip=True, cutout_probability=0.3),
        ),
        runtime=Runtime(
            device="cpu",
            compile=True,
            amp=True,
            amp_dtype="bf16",
            channels_last=False,
            loader="resident",
            workers=2,
            deterministic=True,
            cuda_graphs=False,
        ),
    )


def test_a_run_from_the_command_line(data: Path, tmp_path: Path) -> None:
    extras = ("--report", "--tensorboard")
    done = command("cifarfast.train", "--data", data, *SMALL, "--loader", "resident", *extras, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name.endswith("-annealed")
    lines = done.stdout.splitlines()
    assert "data: synthetic, 32 training and 16 test images" in lines
    assert any(line.startswith(" 1/1 ") for line in lines)  # one line an epoch where there is no terminal
    assert f"saved {Path('runs') / out.name}" in lines
    assert lines[-1] == f"see {Path('runs') / out.name / 'report.html'}"
    assert (out / "report.html").stat().st_size > 10_000
    assert len(list((out / "tensorboard").iterdir())) == 1
    whole = next(line for line in lines if line.startswith("the whole run"))
    assert whole.endswith(f"python -m cifarfast.train --data {data} --recipe annealed --device cpu --loader resident")
    again = command("cifarfast.train", "--data", data, *SMALL, "--out", out, cwd=tmp_path)
    assert "already holds a run" in refused(again.returncode, again.stderr)


def test_a_signal_stops_the_command_and_resume_ends_the_run(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, *SMALL, "--loader", "resident", "--epochs", "3", "--out", "run")
    line = [sys.executable, "-m", "cifarfast.train", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(" 1/3 "):
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    stopping, stopped = errors.splitlines()
    assert stopping == "SIGTERM: stopping after this step; a second signal leaves at once"
    assert stopped == "error: stopped by SIGTERM: go on with python -m cifarfast.train --resume run"
    changed = command("cifarfast.train", "--resume", "run", "--batch-size", "8", cwd=tmp_path)
    assert "run was not begun with --batch-size 8 (but 16)" in refused(changed.returncode, changed.stderr)
    elsewhere = command("cifarfast.train", "--resume", "run", "--out", "other", cwd=tmp_path)
    assert "leave out --out" in refused(elsewhere.returncode, elsewhere.stderr)
    done = command("cifarfast.train", "--resume", "run", "--no-report", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[:5] for line in done.stdout.splitlines()[1:4]] == [" 1/3 ", " 2/3 ", " 3/3 "]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["epochs"], summary["steps"], len(summary["resumed_at"])) == (3, 6, 1)


def test_without_a_compiler_the_run_is_eager_and_says_so(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, *SMALL, "--loader", "resident", "--out", "run", "--compile")
    cache = str(tmp_path / "cache")
    done = command("cifarfast.train", *arguments, cwd=tmp_path, CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert sum("torch.compile does not work here" in line for line in done.stderr.splitlines()) == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["runtime"]["asked"]["compile"] is True
    assert summary["runtime"]["effective"]["compile"] is False
    assert summary["compile_seconds"] is None


def test_layers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--summary"])
    printed = capsys.readouterr().out
    assert "6,573,130" in printed
    assert printed.count("150.99") == 3
    main(["--summary", "--network", "convnet", "--dropout", "0", "--width", "16"])
    first = next(line for line in capsys.readouterr().out.splitlines() if "stage1.conv1" in line)
    assert "16 x 30 x 30" in first  # of 31, the pooling leaves out the last
    assert f"{16 * 24 * 9:,}" in first


def attempt(arguments: Sequence[str | Path]) -> object:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as leaving:
        door.run(lambda: main(list(map(str, arguments))))
    return leaving.value.code


@pytest.mark.usefixtures("restored_sigterm")
def test_divergence_is_exit_3(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ("--recipe", "reference", "--max-lr", "1e30", "--div-factor", "1")  # all the way
    run = ("--loader", "resident", "--epochs", "2", "--out", tmp_path / "run")
    assert attempt(["--data", data, *SMALL, *wild, *run]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "learning rate 1e+30" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "nonsense"), "nonsense is unknown: choose one of reference"),
        (("--epochs", "0"), "epochs must be at least 1, not 0"),
        (("--batch-size", "-4"), "batch_size must be at least 2, not -4"),
        (("--batch-size", "1000"), "--batch-size 1000 is more than the 160 training images"),
        (("--train-images", "0"), "--train-images must be between 1 and 160"),
        (("--dropout", "2"), "dropout must be"),
        (("--network", "convnet"), "dropout must be 0 for convnet"),
        (("--loader", "torchvision", "--alternate-flip"), "add --no-alternate-flip (in a study"),
        (("--device", "cuda"), "--device cuda"),
        (("--data", "nowhere"), "python -m data_prep.to_ffcv --out nowhere"),
        (("--out", "/proc/run"), "cannot write to /proc/run"),
        (("--resume", "nowhere"), "nowhere holds no run"),
        (("--checkpoint-minutes", "0"), "checkpoint_minutes must be positive"),
    ],
)
@pytest.mark.usefixtures("restored_sigterm")
def test_a_mistake_is_one_line_and_exit_2(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert words in refusal(main, capsys, "--data", data, "--batch-size", "16", "--loader", "resident", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_is_refused(data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "data"
    shutil.copytree(data, bad)
    with (bad / "train.beton").open("r+b") as file:
        file.seek(-100_000, 2)
        file.write(b"\xff")
    done = command("cifarfast.train", "--data", bad, *SMALL, "--out", "run", cwd=tmp_path)
    assert "train.beton is damaged" in refused(done.returncode, done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tiny")
def test_a_run_with_a_recipe_of_its_own_name_is_resumed_by_the_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(name="mine", epochs=1, batch_size=16)
    cifarfast.fit(recipe, Runtime(device="cpu", loader="resident"), data=data, out=tmp_path / "run", train_images=32)
    main(["--resume", str(tmp_path / "run"), "--epochs", "2", "--no-report"])
    printed = capsys.readouterr().out
    assert f"saved {tmp_path / 'run'}" in printed
    assert "the whole run" not in printed
