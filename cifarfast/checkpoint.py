"""Checkpoints: all that training needs to go on as if it had never stopped, to the last bit.

One safetensors file each, with the tensors of the step and, as JSON, everything else; written atomically
and by a thread of its own, so that training waits only for the copy. Nothing is replayed on the way back:
order, augmentation and dropout are functions of seed, epoch and batch.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec
import torch

from cifarfast.errors import Stopped, UserError
from cifarfast.metrics import EpochRow
from cifarfast.records import NewerSchemaError, decode_versioned, sealed
from cifarfast.step import TrainStep
from cifarfast.summary import Effective
from cifarfast.tensorfile import file_bytes, read_tensors, write_tensors

SCHEMA = 1
KEPT = 2
_SUFFIX = ".safetensors"
_STATE = "state"
_MOST_MOMENTS = 2
"""Of the weights, that an optimizer keeps: Adam's."""

Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(kw_only=True)
class Progress:
    """How far a run has come."""

    epoch: Count = 0
    """Epochs that are done: trained, evaluated and recorded."""
    batch: Count = 0
    """Batches done of the epoch under way; all of them while its evaluation is due."""
    rows: list[EpochRow] = field(default_factory=list)
    """The epochs that are done."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What the stopwatch read: the run so far, and the epoch under way."""
    resumed_at: list[Count] = field(default_factory=list)
    """Steps after which the run was taken up again."""

    def __post_init__(self) -> None:
        if len(self.rows) != self.epoch:
            raise ValueError(f"{len(self.rows)} rows for {self.epoch} epochs")

    def steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps since the start of the run."""
        return self.epoch * steps_per_epoch + self.batch

    def finish(self, row: EpochRow) -> None:
        """An epoch is done."""
        self.epoch, self.batch = row.epoch, 0
        self.rows.append(row)


@dataclass(frozen=True, kw_only=True)
class State:
    """What a checkpoint holds beside its tensors."""

    schema: int = SCHEMA
    """Version of this layout."""
    progress: Progress
    """How far the run has come."""
    scaler: dict[str, float]
    """The loss scaler's state, empty without fp16."""
    effective: Effective
    """How the run was executed."""


class Checkpoints:
    """Writes the checkpoints of a run and keeps the last two; a context, at whose end the last one is on disk.

    Args:
        folder: where they go.
        effective: how the run is executed.
        minutes: time between checkpoints within an epoch.
        first: the checkpoint that the run goes on from.
    """

    def __init__(self, folder: Path, effective: Effective, *, minutes: float, first: Path | None = None) -> None:
        self._folder, self._effective, self._seconds = folder, effective, 60 * minutes
        self._kept = [] if first is None else [first]
        self._last = time.monotonic()
        self._writing: Future[None] | None = None
        folder.mkdir(exist_ok=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None or isinstance(error, Stopped):
            self._wait()
            self._prune()  # a run that was killed between writing and removing has left one too many

    def due(self) -> bool:
        """Whether the last checkpoint is so old that it is time for one within the epoch."""
        return time.monotonic() - self._last >= self._seconds

    def write(self, step: TrainStep, progress: Progress, steps: int) -> None:
        """Copy the state of a run after `steps` steps, and start to write it.

        Raises:
            OSError, UserError: the one before could not be written.
        """
        self._wait()
        tensors = {
            name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
            for name, tensor in step.tensors().items()
        }
        state = State(progress=progress, scaler=step.scaler.state_dict(), effective=self._effective)
        facts = {_STATE: json.dumps(sealed(state), allow_nan=False)}
        path = self._folder / f"step-{steps:08d}{_SUFFIX}"
        self._writing = self._thread.submit(self._write, path, tensors, facts)
        self._last = time.monotonic()

    def _write(self, path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
        write_tensors(path, tensors, facts)
        self._kept = [*(kept for kept in self._kept if kept != path), path][-KEPT:]
        self._prune()

    def _prune(self) -> None:
        """Remove all but two: those that are known to be whole first, then the newest."""
        others = [path for path in self._folder.glob(f"step-*{_SUFFIX}") if path not in self._kept]
        for other in sorted(others, reverse=True)[KEPT - len(self._kept) :]:
            other.unlink()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def restore(
    folder: Path, step: TrainStep, note: Callable[[str], None], *, steps_per_epoch: int
) -> tuple[Path, State] | None:
    """Put the newest usable checkpoint into `step`; None, and `step` as it was, where there is none.

    A damaged one, or one of another run, is named by `note`, and the one before is taken.

    Raises:
        UserError: a checkpoint was written by a newer version.
    """
    weights = list(step.model.parameters())
    most = file_bytes([*step.tensors().values(), *weights * _MOST_MOMENTS])
    for path in sorted(folder.glob(f"step-*{_SUFFIX}"), reverse=True):
        hint = "taking the one before"
        try:
            tensors, facts = read_tensors(path, max_bytes=most, hint=hint)
            raw = facts.get(_STATE, "").encode()
            state = decode_versioned(raw, State, schema=SCHEMA, where=path, hint=hint)
            if state.progress.batch > steps_per_epoch:
                raise ValueError(f"batch {state.progress.batch} of {steps_per_epoch}")
            step.load(tensors, state.scaler)
        except NewerSchemaError:
            raise
        except UserError as error:
            note(str(error))
        except ValueError as error:
            note(f"{path} is not of this run ({error}): {hint}")
        else:
            return path, state
    return None
