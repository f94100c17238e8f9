import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cifarfast.config import SavedConfig
from cifarfast.errors import UserError
from cifarfast.metrics import EpochRow
from cifarfast.networks.convnet import ConvNet
from cifarfast.networks.resnet import ResNet
from cifarfast.recipe import RECIPES
from cifarfast.records import sealed
from cifarfast.runfolder import RunFolder, read_model, read_rows, read_run
from cifarfast.tensorfile import write_tensors

CONFIG = SavedConfig(
    class_names=tuple("abcdefghij"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    train_sha256="0" * 64,
    test_sha256="1" * 64,
)


def row(epoch: int, accuracy: float = 0.5, epoch_seconds: float = 10.0) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        steps=4 * epoch,
        train_loss=1.0,
        train_accuracy=0.4,
        test_loss=1.1,
        test_accuracy=accuracy,
        lr=0.01,
        epoch_seconds=epoch_seconds,
        eval_seconds=1.0,
        images_per_second=100.0,
        data_wait_percent=2.0,
        peak_memory_bytes=10**9,
    )


def test_rows_are_appended_as_json_lines(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.append(row(1))
        folder.append(row(2))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [sealed(row(1)), sealed(row(2))]
    assert read_rows(tmp_path / "run") == [row(1), row(2)]


def test_a_line_that_is_still_being_written_is_left_out_and_a_missing_one_noticed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        for epoch in (1, 2, 3):
            folder.append(row(epoch))
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert read_rows(tmp_path / "run") == [row(1), row(2)]
    first, _, last = whole.splitlines(keepends=True)
    for damaged in (first + last, first + first, last + first):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="its epochs are not 1, 2, 3 and so on"):
            read_rows(tmp_path / "run")


def test_a_finished_run_that_has_lost_epochs_is_noticed(tmp_path: Path) -> None:
    from tests.test_summary import summary  # which imports this module

    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(CONFIG)
        folder.write_summary(summary([row(1), row(2)]))
        folder.append(row(1))
        with pytest.raises(UserError, match=r"metrics.jsonl has lost epochs \(1 of 2 are left\)"):
            read_run(tmp_path / "run")
        for epoch in (2, 3):  # which a longer run adds
            folder.append(row(epoch))
            assert read_run(tmp_path / "run").summary == summary([row(1), row(2)])
            assert read_run(tmp_path / "run").rows == [row(1), row(2)]


def test_weights_have_the_raw_names_and_values(tmp_path: Path) -> None:
    model = ResNet().to(memory_format=torch.channels_last)
    with RunFolder(tmp_path / "run") as folder:
        folder.write_model(model)
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(CONFIG)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.json"]
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_folder_with_checkpoints_of_a_lost_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000004.safetensors").touch()
    with pytest.raises(UserError, match=r"holds checkpoints but no config\.json: choose another --out"):
        RunFolder(tmp_path)
    assert (tmp_path / "checkpoints" / "step-00000004.safetensors").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cifarfast.runfolder import RunFolder; RunFolder(Path(sys.argv[1]))"
    )
    with RunFolder(tmp_path / "run"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
    assert "is in use by another run" in done.stderr


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run"):
        RunFolder(tmp_path / "file" / "run")


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_not_read(make: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(CONFIG)
    (tmp_path / "run" / name).unlink(missing_ok=True)
    make(tmp_path / "run" / name)
    with pytest.raises(UserError, match=f"{name} cannot be read .it is not a plain file.: name another run"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.flatten, lambda tensor: None])
def test_the_weights_of_another_network_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor | None], tmp_path: Path
) -> None:
    tensors = ResNet().state_dict()
    name = next(iter(tensors))
    if (changed := change(tensors.pop(name))) is not None:
        tensors[name] = changed
    _check_refused(tmp_path / "run", tensors)


def test_the_weights_of_another_recipe_are_refused(tmp_path: Path) -> None:
    _check_refused(tmp_path / "run", ConvNet(width=4).state_dict())


def _check_refused(run: Path, tensors: dict[str, torch.Tensor]) -> None:
    with RunFolder(run) as folder:
        folder.write_config(CONFIG)
    write_tensors(run / "model.safetensors", tensors)
    with pytest.raises(UserError, match="holds the weights of another network"):
        read_model(run)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(CONFIG)
    halves = [tmp_path / "run" / ".summary.json.abc.tmp", folder.checkpoints / ".step-00000003.safetensors.abc.tmp"]
    folder.checkpoints.mkdir()
    for half in halves:
        half.write_bytes(b"half")
    with RunFolder(tmp_path / "run", resume=True):
        assert not any(half.exists() for half in halves)


def test_the_hidden_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / ".notes.txt.tmp", tmp_path / ".model.pt2.abc.tmp", tmp_path / ".report.html.abc.tmp"]
    for other in others:
        other.write_bytes(b"mine")
    with RunFolder(tmp_path):
        assert all(other.read_bytes() == b"mine" for other in others)


def test_the_weights_of_a_wide_network_are_read(tmp_path: Path) -> None:
    recipe = replace(RECIPES["speedrun-91"], width=160)
    model = ConvNet(width=160)
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(replace(CONFIG, recipe=recipe))
        folder.write_model(model)
    assert torch.equal(read_model(tmp_path / "run").head.weight, model.head.weight)


def test_no_memory_is_asked_for_before_the_weights_are_seen_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(replace(CONFIG, recipe=replace(RECIPES["speedrun-91"], width=512)))
        folder.write_model(ConvNet(width=4))
    made: list[torch.device] = []
    monkeypatch.setattr(ConvNet, "__init__", _told(ConvNet.__init__, made))
    with pytest.raises(UserError, match="holds the weights of another network"):
        read_model(tmp_path / "run")
    assert made == [torch.device("meta")]


def _told(original: Callable[..., None], devices: list[torch.device]) -> Callable[..., None]:
    def init(model: ConvNet, *, width: int, gated: bool) -> None:
        original(model, width=width, gated=gated)
        devices.append(model.head.weight.device)

    return init
