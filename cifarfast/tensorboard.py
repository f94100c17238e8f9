"""The epochs of a run as TensorBoard events, beside metrics.jsonl."""

from pathlib import Path
from types import TracebackType

from cifarfast.errors import UserError
from cifarfast.metrics import EpochRow

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
        run: the run folder.
        done: epochs that were done before; events of later ones, from a run that was interrupted, are overruled.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, *, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs TensorBoard: pip install 'cifarfast[tensorboard]', or leave it out"
            ) from None
        self._writer = SummaryWriter(str(run / FOLDER_NAME), purge_step=done + 1)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def epoch(self, row: EpochRow) -> None:
        """One epoch is done: its figures go to the disk, over the number of the epoch."""
        for tag, field in TAGS.items():
            self._writer.add_scalar(tag, getattr(row, field), row.epoch)
        self._writer.flush()
