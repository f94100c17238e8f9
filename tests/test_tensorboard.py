from pathlib import Path
from typing import Any

import pytest

from cifarfast.errors import UserError
from cifarfast.metrics import EpochRow
from cifarfast.tensorboard import FOLDER_NAME, TAGS, TensorBoard
from tests.test_runfolder import row

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: for every curve its steps and values."""
    events: Any = accumulator.EventAccumulator(str(run / FOLDER_NAME))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def of(rows: list[EpochRow]) -> dict[str, list[tuple[int, Any]]]:
    return {tag: [(r.epoch, pytest.approx(getattr(r, field))) for r in rows] for tag, field in TAGS.items()}


def test_every_epoch_is_on_the_disk_when_it_is_done(tmp_path: Path) -> None:
    rows = [row(epoch, accuracy=0.3 + epoch / 10) for epoch in (1, 2, 3)]
    with TensorBoard(tmp_path) as board:
        for number, epoch in enumerate(rows, 1):
            board.epoch(epoch)
            assert curves(tmp_path) == of(rows[:number])


def test_a_resumed_run_overrules_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    with TensorBoard(tmp_path) as board:
        for epoch in (1, 2):
            board.epoch(row(epoch, accuracy=0.1))
    with TensorBoard(tmp_path) as board:
        board.epoch(row(2, accuracy=0.5))
    assert curves(tmp_path) == of([row(1, accuracy=0.1), row(2, accuracy=0.5)])


def test_without_tensorboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cifarfast\[tensorboard\]'"):
        TensorBoard(tmp_path)
    assert list(tmp_path.iterdir()) == []
