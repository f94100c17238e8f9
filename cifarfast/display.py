"""What a person sees while a run goes on: a live bar on a terminal, one line an epoch elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cifarfast.metrics import EpochRow

HEADER = "epoch   train loss   train acc   test loss   test acc       lr   epoch s   images/s   data wait"


class Display:
    """Prints epochs, and between them how far training has come; the bar lives as long as the context.

    Args:
        epochs, steps: length of the whole run.
        done: steps that were done before.
    """

    def __init__(self, *, epochs: int, steps: int, done: int = 0) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, time left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("training", total=steps, completed=done)

    def __enter__(self) -> "Display":
        self._console.print(HEADER)
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, epoch: int) -> None:
        """One more step is under way."""
        self._progress.update(self._task, advance=1, description=f"epoch {epoch + 1} of {self._epochs}")

    def epoch(self, row: EpochRow) -> None:
        """One epoch is done."""
        self._console.print(
            f"{row.epoch:>2}/{self._epochs:<2} {row.train_loss:>12.4f} {row.train_accuracy:>11.2%} "
            f"{row.test_loss:>11.4f} {row.test_accuracy:>10.2%} {row.lr:>8.5f} {row.epoch_seconds:>9.1f} "
            f"{row.images_per_second:>10,.0f} {row.data_wait_percent:>10.1f}%"
        )
