"""The folder of a run: the interface between training, evaluation, reports, benchmarks and people.

    config.json              what was asked: recipe, runtime, data, seed
    metrics.jsonl            one line an epoch, appended as it ends
    predictions.safetensors  what the network says about the test images, after the last epoch
    checkpoints/             how far training has come, the last two
    diverged.json            why training came to no end, where it diverged
    lr_range.json            the range test that found max_lr (`cifarfast.range_record`), where there was one
    summary.json             what came out, written once at the end
    model.safetensors        the weights and buffers of the raw network
    .lock                    held by the process that writes here

Nothing in it can execute: JSON and safetensors only. Every file but the metrics is written atomically,
and a line of the metrics is appended in one write, so that a copy made at any moment is a run folder too.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cifarfast.config import SavedConfig
from cifarfast.errors import UserError
from cifarfast.files import read_plain, remove_temporaries, write_json, write_text
from cifarfast.metrics import SCHEMA, EpochRow
from cifarfast.records import decode, decode_versioned, sealed
from cifarfast.summary import Summary

if TYPE_CHECKING:
    import torch

    from cifarfast.model import Network

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"
SUMMARY_NAME = "summary.json"
DIVERGED_NAME = "diverged.json"
MODEL_NAME = "model.safetensors"
_WRITTEN = (CONFIG_NAME, METRICS_NAME, SUMMARY_NAME, DIVERGED_NAME, MODEL_NAME, "predictions.*", "lr_range.*")
"""By the process that holds the lock, and nobody else."""
_LOCK_NAME = ".lock"
_TEXT_MAX_BYTES = 1 << 24


class RunFolder:
    """A run folder that this process writes, as a context manager that holds its lock.

    Args:
        path: the folder.
        resume: it must hold a run, which is to go on; otherwise it must not.

    Raises:
        UserError: it holds a run or does not, is in use, or cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path, self.resumes = path, resume
        self._made = not path.exists()
        if resume and not (path / CONFIG_NAME).is_file():
            raise UserError(f"{path} holds no run ({CONFIG_NAME} is missing): name the folder that training printed")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / _LOCK_NAME)
            self._lock.acquire(timeout=0)
        except Timeout:
            where = "wait for it, or stop it" if resume else "choose another --out"
            raise UserError(f"{path} is in use by another run: {where}") from None
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}): choose another --out") from None
        if not resume and (path / CONFIG_NAME).exists():
            self._lock.release()
            raise UserError(
                f"{path} already holds a run: choose another --out, move that one away, or go on with --resume {path}"
            )
        if not resume and self.has_checkpoints:
            self._lock.release()
            raise UserError(f"{path} holds checkpoints but no {CONFIG_NAME}: choose another --out, or move them")
        remove_temporaries(path, *_WRITTEN)
        remove_temporaries(self.checkpoints, "step-*")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._made and [path.name for path in self.path.iterdir()] == [_LOCK_NAME]:
            (self.path / _LOCK_NAME).unlink()
            self.path.rmdir()
        self._lock.release()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / CHECKPOINTS_NAME

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is any."""
        return any(self.checkpoints.glob("step-*"))

    def write_config(self, config: SavedConfig) -> None:
        """Write config.json; from here on the folder holds a run."""
        write_json(self.path / CONFIG_NAME, sealed(config))

    def withdraw_config(self) -> None:
        """Remove config.json: no run has come of it."""
        (self.path / CONFIG_NAME).unlink()

    def append(self, row: EpochRow) -> None:
        """Append one epoch to metrics.jsonl and see it to the disk."""
        with (self.path / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, rows: Sequence[EpochRow]) -> None:
        """Make metrics.jsonl hold these epochs and no others, where it does not already."""
        path, text = self.path / METRICS_NAME, "".join(map(_line, rows))
        if (path.read_text(encoding="utf-8", errors="replace") if path.exists() else "") != text:
            write_text(path, text)

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json."""
        write_json(self.path / SUMMARY_NAME, sealed(summary))

    def write_diverged(self, diverged: "Diverged") -> None:
        """Write diverged.json."""
        write_json(self.path / DIVERGED_NAME, sealed(diverged))

    def withdraw_diverged(self) -> None:
        """Remove diverged.json, if there is one: training goes on."""
        (self.path / DIVERGED_NAME).unlink(missing_ok=True)

    def write_model(self, model: "torch.nn.Module") -> None:
        """Write model.safetensors: tensors under the raw module's names."""
        from cifarfast.tensorfile import write_tensors

        write_tensors(self.path / MODEL_NAME, model.state_dict())


@dataclass(frozen=True, kw_only=True)
class Diverged:
    """The whole of diverged.json."""

    schema: int = SCHEMA
    """Version of this layout."""
    epochs: int
    """Epochs that were done."""
    reason: str
    """The step, what was not finite, and where."""


@dataclass(frozen=True)
class Run:
    """A run folder as it was found: every file read and checked."""

    path: Path
    """The folder."""
    config: SavedConfig
    """What was asked."""
    rows: list[EpochRow]
    """The epochs that are done."""
    summary: Summary | None
    """What came out; None while the run is unfinished."""


def read_run(path: Path) -> Run:
    """Read all of a run folder but its tensors, also while it is being written.

    While a finished run is being made longer, it is still read as it was when it had finished.

    Raises:
        UserError: it holds no run, or a file in it is damaged, or lines of its metrics are missing.
    """
    config, summary, rows = read_config(path), read_summary(path), read_rows(path)  # rows last: a run may be ending
    if summary is not None and len(rows) < summary.epochs:
        raise UserError(
            f"{path / METRICS_NAME} has lost epochs ({len(rows)} of {summary.epochs} are left): name another run"
        )
    return Run(path=path, config=config, rows=rows if summary is None else rows[: summary.epochs], summary=summary)


def read_config(path: Path) -> SavedConfig:
    """Read config.json of a run folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = path / CONFIG_NAME
    if (raw := _read(file)) is None:
        raise UserError(f"{path} holds no run ({CONFIG_NAME} is missing): name the folder that training printed")
    return decode_versioned(raw, SavedConfig, schema=SCHEMA, where=file, hint="name another run")


def read_rows(path: Path) -> list[EpochRow]:
    """Read metrics.jsonl of a run folder; a last line that is still being written is left out.

    Raises:
        UserError: a line is damaged or missing.
    """
    file = path / METRICS_NAME
    lines = (_read(file) or b"").split(b"\n")[:-1]
    rows = [decode(line, EpochRow, where=file, hint="name another run") for line in lines]
    if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        raise UserError(f"{file} is damaged (its epochs are not 1, 2, 3 and so on): name another run")
    return rows


def read_summary(path: Path) -> Summary | None:
    """Read summary.json of a run folder; None while the run is unfinished.

    Raises:
        UserError: it is damaged.
    """
    file = path / SUMMARY_NAME
    if (raw := _read(file)) is None:
        return None
    return decode_versioned(raw, Summary, schema=SCHEMA, where=file, hint="name another run")


def read_diverged(path: Path) -> Diverged | None:
    """Read diverged.json of a run folder; None while training has not diverged.

    Raises:
        UserError: it is damaged.
    """
    file = path / DIVERGED_NAME
    if (raw := _read(file)) is None:
        return None
    return decode_versioned(raw, Diverged, schema=SCHEMA, where=file, hint="remove the run, and train it again")


def read_model(path: Path) -> "Network":
    """The trained network of a run folder, on the CPU, in eval mode.

    Raises:
        UserError: there is none yet, or it is damaged, or it is of another network.
    """
    from cifarfast.model import empty_model, meta_model
    from cifarfast.tensorfile import file_bytes, read_tensors

    file = path / MODEL_NAME
    if not file.exists():
        raise UserError(f"{path} has no {MODEL_NAME} yet: let the run end, or go on with --resume {path}")
    recipe = read_config(path).recipe
    expected = meta_model(recipe).state_dict()
    tensors, _ = read_tensors(file, max_bytes=file_bytes(expected.values()), hint="name another run")
    if _layout(tensors) != _layout(expected):
        raise UserError(f"{file} holds the weights of another network: name another run")
    model = empty_model(recipe).eval()
    model.load_state_dict(tensors)
    return model


def _layout(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, tuple["torch.dtype", "torch.Size"]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _line(row: EpochRow) -> str:
    return json.dumps(sealed(row), allow_nan=False) + "\n"


def _read(path: Path) -> bytes | None:
    try:
        return read_plain(path, _TEXT_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name another run") from None
