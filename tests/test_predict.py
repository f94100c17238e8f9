import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cifarfast.files import write_json
from cifarfast.guessing import guess_files
from cifarfast.predict import main
from cifarfast.records import sealed
from cifarfast.runfolder import CONFIG_NAME, MODEL_NAME, read_config
from tests.commands import command, refusal, refused


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_a_table(trained: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(trained), str(image), "--top", "2"])
    ((_, guesses),), _ = guess_files(trained, [image], top=2)
    shown = capsys.readouterr()
    assert shown.err == ""
    for guess in guesses:
        assert any(guess.name in line and f"{guess.probability:.1%}" in line for line in shown.out.splitlines())
    assert len([line for line in shown.out.splitlines() if "%" in line]) == 2


def test_json(trained: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(trained), str(image), "--json"])
    ((_, guesses),), _ = guess_files(trained, [image])
    assert json.loads(capsys.readouterr().out) == [
        {"file": str(image), "classes": [{"name": each.name, "probability": each.probability} for each in guesses]}
    ]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_unreadable_files_are_named_and_the_rest_is_answered_for(
    trained: Path, image: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    """With names that would paint a terminal, or are not UTF-8."""
    odd = image.rename(tmp_path / os.fsdecode(b"\x1b[31mred\xff.png"))
    (tmp_path / "cut\x1b[2J.png").write_bytes(odd.read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe")
    files = [tmp_path / "cut\x1b[2J.png", odd, tmp_path, tmp_path / "pipe", tmp_path / "missing"]
    done = command("cifarfast.predict", trained, *files, *form, cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.partition(" cannot be read as an image")[0] for line in lines] == [
        f"error: {tmp_path}{name}" for name in ("/cut\\x1b[2J.png", "", "/pipe", "/missing")
    ]
    assert "\x1b" not in done.stdout + done.stderr
    if form:
        (answer,) = json.loads(done.stdout)
        assert answer["file"] == str(odd)
    else:
        assert "[31m" in done.stdout
        assert "%" in done.stdout


def test_none_readable_is_no_answer(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(trained), str(tmp_path / "missing"), "--json"])
    shown = capsys.readouterr()
    assert "missing cannot be read" in refused(leaving.value.code, shown.err)
    assert json.loads(shown.out) == []


@pytest.mark.usefixtures("restored_sigterm")
def test_a_mistake_is_one_line_and_exit_2(
    trained: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "which images? name one or more files" in refusal(main, capsys, trained)
    assert "top must be between 1 and 10, not 11" in refusal(main, capsys, trained, image, "--top", "11")
    assert f"{tmp_path} holds no run" in refusal(main, capsys, tmp_path, image)
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = bytearray((run / MODEL_NAME).read_bytes())
    weights[-1] ^= 1
    (run / MODEL_NAME).write_bytes(weights)
    assert f"{MODEL_NAME} is damaged" in refusal(main, capsys, run, image)
    (run / MODEL_NAME).unlink()
    assert f"has no {MODEL_NAME} yet" in refusal(main, capsys, run, image)
    config = read_config(run)
    names = ("\x1b[2J", *config.class_names[1:])
    write_json(run / CONFIG_NAME, sealed(replace(config, class_names=names)))
    assert f"{CONFIG_NAME} is damaged" in refusal(main, capsys, run, image)
