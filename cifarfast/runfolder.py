"""The folder of a run: the interface between training, evaluation, reports, benchmarks and people.

    config.json        what was asked: recipe, runtime, data, seed
    metrics.jsonl      one line an epoch, appended as it ends
    summary.json       what came out, written once at the end
    model.safetensors  the weights and buffers of the raw network
    .lock              held by the process that writes here

Nothing in it can execute: JSON and safetensors only. Every file but the metrics is written atomically,
and a line of the metrics is appended in one write.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from cifarfast.errors import UserError
from cifarfast.files import replacing, write_json
from cifarfast.metrics import SCHEMA, EpochRow
from cifarfast.summary import Summary

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
SUMMARY_NAME = "summary.json"
MODEL_NAME = "model.safetensors"
_LOCK_NAME = ".lock"


class RunFolder:
    """A run folder that this process writes, as a context manager that holds its lock.

    Raises:
        UserError: the folder already holds a run, is in use, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / _LOCK_NAME)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{path} is in use by another run: choose another --out") from None
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}): choose another --out") from None
        if (path / CONFIG_NAME).exists():
            self._lock.release()
            raise UserError(f"{path} already holds a run: choose another --out, or move that one away")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._made and [path.name for path in self.path.iterdir()] == [_LOCK_NAME]:
            (self.path / _LOCK_NAME).unlink()
            self.path.rmdir()
        self._lock.release()

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.json; from here on the folder holds a run."""
        write_json(self.path / CONFIG_NAME, {"schema": SCHEMA, **config})

    def append(self, row: EpochRow) -> None:
        """Append one epoch to metrics.jsonl and see it to the disk."""
        with (self.path / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json."""
        write_json(self.path / SUMMARY_NAME, asdict(summary))

    def write_model(self, model: torch.nn.Module) -> None:
        """Write model.safetensors: contiguous tensors under the raw module's names, on the CPU."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        with replacing(self.path / MODEL_NAME) as temporary:
            save_file(tensors, temporary)
