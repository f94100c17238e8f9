import json
import re
from pathlib import Path

import pytest

from cifarfast.find_lr import Arguments, main, parse_arguments
from cifarfast.range_test import Sweep
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from tests.commands import command, refusal
from tests.test_train import FLAGS as TRAIN_FLAGS

SMALL = ("--batch-size", "16", "--train-images", "32", "--device", "cpu", "--loader", "resident")
FLAGS = TRAIN_FLAGS - {"--summary", "--resume", "--checkpoint-minutes", "--tensorboard", "--report"} | {
    "--start-lr", "--end-lr", "--num-iter", "--mode", "--smoothing", "--divergence",
}  # fmt: skip


def test_the_command_line_is_frozen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = set(re.findall(r"(?<!\S)--(?!no-)[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert shown == FLAGS | {"--help"}


def test_every_flag_reaches_its_field() -> None:
    line = (
        "--data d --out o --seed 4 --train-images 5 --test-images 6 --no-verify --recipe reference --dropout 0.2 "
        "--start-lr 0.001 --end-lr 3 --num-iter 20 --mode linear --smoothing 0.1 --divergence 5 --device cpu --amp"
    )
    assert parse_arguments(line.split()) == Arguments(
        data=Path("d"),
        out=Path("o"),
        seed=4,
        train_images=5,
        test_images=6,
        verify=False,
        sweep=Sweep(start_lr=0.001, end_lr=3.0, num_iter=20, mode="linear", smoothing=0.1, divergence=5.0),
        recipe=Recipe(dropout=0.2),
        runtime=Runtime(device="cpu", amp=True),
    )


def test_a_range_test_from_the_command_line(data: Path, tmp_path: Path) -> None:
    sweep = ("--num-iter", "4", "--start-lr", "1e29", "--end-lr", "1e30", "--divergence", "1e300")
    done = command("cifarfast.find_lr", "--data", data, *SMALL, *sweep, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name.endswith("-annealed-lr-range")
    result = json.loads((out / "lr_range.json").read_text())["result"]
    first, stopped, *suggestions, saved = done.stdout.splitlines()
    steps = len(result["points"])
    lr = result["points"][-1]["lr"]
    assert first == "data: synthetic, 32 training images"
    assert stopped == f"stopped at learning rate {lr:.3g}, step {steps}: the loss is not finite"
    assert [line.split()[0] for line in suggestions] == ["steepest", "minimum_tenth", "valley"]
    assert all(f"only {steps - 1} usable losses" in line for line in suggestions)
    assert saved == f"saved {Path('runs') / out.name}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "nonsense"), "nonsense is unknown: choose one of reference"),
        (("--num-iter", "1"), "num_iter must be at least 2, not 1"),
        (("--start-lr", "2"), "end_lr must be above start_lr (2.0), not 1.0"),
        (("--test-images", "41"), "--test-images must be between 1 and 40"),
        (("--data", "nowhere"), "python -m data_prep.to_ffcv --out nowhere"),
        (("--out", "/proc/range"), "cannot write to /proc/range"),
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
    monkeypatch.chdir(tmp_path)
    assert words in refusal(main, capsys, "--data", data, *SMALL, *arguments)
    assert list(tmp_path.iterdir()) == []
