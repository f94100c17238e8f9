import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cifarfast import tensorfile
from cifarfast.checkpoint import Checkpoints, Progress, restore
from cifarfast.recipe import Recipe
from cifarfast.records import NewerSchemaError, sealed
from cifarfast.step import TrainStep
from cifarfast.tensorfile import write_tensors
from tests.test_runfolder import row
from tests.test_step import MEAN, PLAIN, STD, advance, device
from tests.test_summary import EFFECTIVE
from tests.tiny import build_tiny


def trainer() -> TrainStep:
    step = TrainStep(build_tiny(Recipe(), seed=1), PLAIN, device(), mean=MEAN, std=STD, seed=1)
    step.set(lr=1e-3, momentum=0.9)
    return step


def untouched(step: TrainStep) -> bool:
    new = trainer().model.state_dict()
    return all(torch.equal(tensor, new[name]) for name, tensor in step.model.state_dict().items())


@pytest.fixture(scope="module")
def trained() -> TrainStep:
    step = trainer()
    advance(step, 2)
    return step


def written(folder: Path, step: TrainStep, *steps: int) -> list[Path]:
    """Checkpoints after so many steps of an epoch; the files that are left."""
    with Checkpoints(folder, EFFECTIVE, minutes=1.0) as checkpoints:
        for number in steps:
            checkpoints.write(step, Progress(batch=number), number)
    return sorted(folder.iterdir())


def restored(folder: Path) -> tuple[TrainStep, Progress | None, list[str]]:
    notes: list[str] = []
    step = trainer()
    found = restore(folder, step, notes.append, steps_per_epoch=9)
    return step, found and found[1].progress, notes


def test_everything_comes_back(tmp_path: Path, trained: TrainStep) -> None:
    progress = Progress(epoch=1, batch=2, rows=[row(1)], seconds={"train": 1.5}, resumed_at=[3])
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0) as checkpoints:
        checkpoints.write(trained, progress, 6)
    step, found, notes = restored(tmp_path / "c")
    assert (found, notes) == (progress, [])
    ours, theirs = step.tensors(), trained.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_written_is_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    step = trainer()
    advance(step, 1)
    before = step.model.head.weight.detach().clone()
    progress = Progress(batch=1)
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0) as checkpoints:
        checkpoints.write(step, progress, 1)
        with torch.no_grad():
            step.model.head.weight.zero_()
        progress.batch = 2
    again, found, _ = restored(tmp_path / "c")
    assert torch.equal(again.model.head.weight, before)
    assert found is not None
    assert found.batch == 1


def test_the_last_two_are_kept_and_no_temporary(tmp_path: Path, trained: TrainStep) -> None:
    left = written(tmp_path / "c", trained, 1, 2, 3)
    assert [path.name for path in left] == ["step-00000002.safetensors", "step-00000003.safetensors"]


def test_the_one_that_a_run_goes_on_from_is_one_of_the_two(tmp_path: Path, trained: TrainStep) -> None:
    first, damaged = written(tmp_path / "c", trained, 4, 8)
    damaged.write_bytes(b"")
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0, first=first) as checkpoints:
        checkpoints.write(trained, Progress(batch=5), 5)
    assert [path.name for path in sorted((tmp_path / "c").iterdir())] == [first.name, "step-00000005.safetensors"]


def test_one_too_many_that_a_kill_left_goes_though_none_is_written(tmp_path: Path, trained: TrainStep) -> None:
    oldest, middle = written(tmp_path / "c", trained, 1, 2)
    newest = tmp_path / "c" / "step-00000003.safetensors"
    newest.write_bytes(middle.read_bytes())
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0, first=newest):
        assert oldest.exists()
    assert sorted((tmp_path / "c").iterdir()) == [middle, newest]


def test_the_only_usable_one_outlives_newer_damaged_ones(tmp_path: Path, trained: TrainStep) -> None:
    usable, damaged = written(tmp_path / "c", trained, 1, 2)
    damaged.write_bytes(b"")
    (tmp_path / "c" / "step-00000003.safetensors").write_bytes(b"")
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0, first=usable):
        pass
    assert [path.name for path in sorted((tmp_path / "c").iterdir())] == [usable.name, "step-00000003.safetensors"]


def test_it_is_due_after_some_minutes(tmp_path: Path, trained: TrainStep, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cifarfast.checkpoint.time.monotonic", lambda: now)
    with Checkpoints(tmp_path / "c", EFFECTIVE, minutes=2.0) as checkpoints:
        now = 119.0
        assert not checkpoints.due()
        now = 120.0
        assert checkpoints.due()
        checkpoints.write(trained, Progress(batch=1), 1)
        assert not checkpoints.due()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:],
        lambda raw: raw.replace(b'\\"batch\\": 2', b'\\"batch\\": 1'),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path: Path, trained: TrainStep, damage: object) -> None:
    assert callable(damage)
    _, newest = written(tmp_path / "c", trained, 1, 2)
    raw = newest.read_bytes()
    damaged = damage(raw)
    assert damaged != raw
    newest.write_bytes(damaged)
    step, found, notes = restored(tmp_path / "c")
    assert found == Progress(batch=1)
    (line,) = notes
    assert str(newest) in line
    assert line.endswith("taking the one before")
    assert "\n" not in line
    assert torch.equal(step.model.head.weight, trained.model.head.weight)


def test_where_none_is_usable_the_step_is_untouched(tmp_path: Path, trained: TrainStep) -> None:
    for path in written(tmp_path / "c", trained, 1, 2):
        path.write_bytes(path.read_bytes()[:-8])
    step, found, notes = restored(tmp_path / "c")
    assert (found, len(notes)) == (None, 2)
    assert untouched(step)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, state: tensors.pop("model.head.bias"), "model.head.bias' is missing"),
        (lambda tensors, state: tensors.update(extra=torch.zeros(1)), "'extra' is unknown"),
        (lambda tensors, state: tensors.update({"model.head.bias": torch.zeros(11)}), "model.head.bias is"),
        (lambda tensors, state: tensors.update({"model.head.bias": torch.full((10,), torch.nan)}), "not finite"),
        (lambda tensors, state: state["progress"].update(batch=10), "batch 10 of 9"),
        (lambda tensors, state: state["progress"].update(batch=-1), "batch"),
        (lambda tensors, state: state["progress"].update(epoch=5), "0 rows for 5 epochs"),
        (lambda tensors, state: state.update(scaler={"scale": 2.0}), "scal"),
    ],
)
def test_one_that_is_whole_but_not_of_this_run_is_refused(
    tmp_path: Path, trained: TrainStep, change: object, words: str
) -> None:
    """With a right digest: as somebody might make it on purpose."""
    assert callable(change)
    (path,) = written(tmp_path / "c", trained, 2)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    change(tensors, state)
    write_tensors(path, tensors, {"state": json.dumps(sealed(state))})
    step, found, notes = restored(tmp_path / "c")
    assert (found, len(notes)) == (None, 1)
    assert words in notes[0]
    assert untouched(step)


def test_one_of_a_newer_version_is_not_passed_over(tmp_path: Path, trained: TrainStep) -> None:
    _, path = written(tmp_path / "c", trained, 1, 2)
    write_tensors(path, {}, {"state": '{"schema": 2}'})
    with pytest.raises(NewerSchemaError, match=r"step-00000002.safetensors has schema 2, newer than 1"):
        restored(tmp_path / "c")


def test_that_one_could_not_be_written_is_said_at_the_next(
    tmp_path: Path, trained: TrainStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "step-00000002.safetensors")

    written(tmp_path / "c", trained, 1)
    monkeypatch.setattr("cifarfast.checkpoint.write_tensors", full)
    with pytest.raises(OSError, match="No space left"), Checkpoints(tmp_path / "c", EFFECTIVE, minutes=1.0) as some:
        some.write(trained, Progress(batch=2), 2)
    assert restored(tmp_path / "c")[1] == Progress(batch=1)


def test_the_room_for_a_checkpoint_is_that_of_weights_and_moments(
    tmp_path: Path, trained: TrainStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = written(tmp_path / "c", trained, 1)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    counts = 4 * len(list(trained.model.parameters()))  # Adam counts the steps of each
    monkeypatch.setattr(tensorfile, "_HEADER_BYTES", header + counts)
    assert restored(tmp_path / "c")[1:] == (Progress(batch=1), [])
    monkeypatch.setattr(tensorfile, "_HEADER_BYTES", 0)
    _, found, notes = restored(tmp_path / "c")
    assert found is None
    assert "it has more than" in notes[0]
