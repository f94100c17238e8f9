"""The epochs of a run as TensorBoard events, beside metrics.jsonl."""

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cifarfast.errors import UserError
from cifarfast.metrics import EpochRow

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER_NAME = "tensorboard"
TAGS = {
    "accuracy/train": "train_accuracy",
    "accuracy/test": "test_accuracy",
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "schedule/lr": "lr",
    "seconds/epoch": "epoch_seconds",
    "seconds/eval": "eval_seconds",
    "speed/images_per_second": "images_per_second",
    "speed/data_wait_percent": "data_wait_percent",
}
"""Names of the curves, and the fields of an epoch that they are drawn from."""


class TensorBoard:
    """Writes events into `tensorboard/` of a run folder, as a context manager that closes the file.

    Args:
        run: the run folder; made by the first event.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, run: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs TensorBoard: pip install 'cifarfast[tensorboard]', or leave it out")
        self._folder = run / FOLDER_NAME
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def epoch(self, row: EpochRow) -> None:
        """One epoch is done: its figures go to the disk, over the number of the epoch."""
        if self._writer is None:  # only now, so that a run that is refused leaves no folder
            from torch.utils.tensorboard import SummaryWriter

            # Events from here on, of a run that was interrupted, are overruled.
            self._writer = SummaryWriter(str(self._folder), purge_step=row.epoch)
        for tag, field in TAGS.items():
            self._writer.add_scalar(tag, getattr(row, field), row.epoch)
        self._writer.flush()
