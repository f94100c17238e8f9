import re
from pathlib import Path

import pytest

from cifarfast.accuracy import MARGIN
from cifarfast.runtime import Runtime
from cifarfast.study import Arguments, main, parse_arguments
from tests.commands import refusal

SMALL = ("--train-images", "32", "--test-images", "16", "--device", "cpu", "--loader", "resident")
RECIPES = "reference:batch-size=16:epochs=2,reference:batch-size=16:epochs=2:final-div-factor=1000"
FIRST, SECOND = "reference+epochs=2+batch-size=16", "reference+epochs=2+batch-size=16+final-div-factor=1000"
FLAGS = {
    "--recipe", "--seeds", "--out", "--data", "--train-images", "--test-images", "--verify", "--checkpoint-minutes",
    "--margin",
    "--device", "--compile", "--amp", "--amp-dtype", "--channels-last", "--loader", "--workers", "--deterministic",
    "--cuda-graphs",
}  # fmt: skip


def test_the_command_line_is_frozen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = set(re.findall(r"(?<!\S)--(?!no-)[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert shown == FLAGS | {"--help"}


def test_the_margin_is_the_usual_one() -> None:
    assert Arguments().margin == MARGIN


def test_every_flag_reaches_its_field() -> None:
    line = (
        "--recipe reference,reference:epochs=2 --seeds 0-2 --out o --data d --train-images 5 --test-images 6 "
        "--no-verify --checkpoint-minutes 3 --margin 0.5 --device cpu --compile"
    )
    assert parse_arguments(line.split()) == Arguments(
        recipe="reference,reference:epochs=2",
        seeds="0-2",
        out=Path("o"),
        data=Path("d"),
        train_images=5,
        test_images=6,
        verify=False,
        checkpoint_minutes=3.0,
        margin=0.5,
        runtime=Runtime(device="cpu", compile=True),
    )


@pytest.mark.usefixtures("tiny")
def test_a_study_from_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--data", str(data), *SMALL, "--recipe", RECIPES, "--seeds", "0,1"]
    main(command)
    out = Path("studies") / FIRST
    assert {str(path.parent.relative_to(out)) for path in out.rglob("summary.json")} == {
        f"{name}/seed-{seed}" for name in (FIRST, SECOND) for seed in (0, 1)
    }
    shown = capsys.readouterr()
    assert [line.split(": ")[1] for line in shown.err.splitlines()] == [f"run {n} of 4" for n in (1, 2, 3, 4)]
    lines = shown.out.splitlines()
    done = [line for line in lines if "s of training" in line and ", seed " in line]
    assert [line.split(":")[0] for line in done] == [
        f"{FIRST}, seed 0", f"{SECOND}, seed 0", f"{FIRST}, seed 1", f"{SECOND}, seed 1"
    ]  # fmt: skip
    assert re.fullmatch(r".*: test accuracy [0-9.]+% after [0-9.]+ s of training", done[0])
    start = lines.index(
        "SYNTHETIC DATA: These images are a stand-in, drawn by a program: the accuracies say nothing about CIFAR-10."
    )
    tables = lines[start + 1 :]
    assert [line.split()[0] for line in tables if line.startswith("reference")] == [
        FIRST,
        SECOND,
        SECOND,
        FIRST,
        SECOND,
    ]
    assert tables[1] == "Test accuracy after the last epoch"
    assert tables[-1] == f"see {out / 'study.html'}"
    main(command)
    again = capsys.readouterr()
    assert (again.out.splitlines(), again.err) == (lines[start - 1 :], "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "nonsense"), "--recipe nonsense is unknown: choose one of reference"),
        (("--recipe", "reference:max-lr=x"), "Expected `float`, got `str` - at `$.max_lr`"),
        (("--seeds", "4-0"), "'4-0' is neither a seed nor a range"),
        (("--margin", "-1"), "margin must be at least 0"),
        (("--checkpoint-minutes", "0"), "checkpoint_minutes must be positive"),
        (("--data", "nowhere"), "python -m data_prep.to_ffcv --out nowhere"),
        (("--test-images", "41"), "--test-images must be between 1 and 40"),
        (("--epochs", "3"), "Unrecognized options"),
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
    small = [*SMALL, "--recipe", "reference:batch-size=16"]
    assert words in refusal(main, capsys, "--data", data, *small, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(
    data: Path, capsys: pytest.CaptureFixture[str], restored_sigterm: None
) -> None:
    small = [*SMALL, "--recipe", "reference:batch-size=16"]
    assert "/proc/study" in refusal(main, capsys, "--data", data, *small, "--out", "/proc/study")
