"""predictions.safetensors: what the network of a run said about every test image, so that a report needs no network."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cifarfast.errors import UserError
from cifarfast.networks import CLASSES
from cifarfast.tensorfile import read_tensors, write_tensors

PREDICTIONS_NAME = "predictions.safetensors"
_MAX_BYTES = 1 << 29
_EPOCH = "epoch"


@dataclass(frozen=True)
class Predictions:
    """The logits of the test images, in the order in which they are evaluated."""

    logits: npt.NDArray[np.float32]
    """(N, 10), finite."""
    labels: npt.NDArray[np.int64]
    """(N,), 0 to 9."""
    epoch: int
    """After which epoch."""

    @property
    def predicted(self) -> npt.NDArray[np.intp]:
        """(N,): the class with the largest logit."""
        return np.asarray(self.logits.argmax(1))

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(N, 10): softmax of the logits."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(10, 10): how many images of the class of the row were taken for the class of the column."""
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def worst(self, count: int) -> npt.NDArray[np.intp]:
        """Positions of the `count` wrong answers of the highest probability, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        confidence = self.probabilities.max(1)[wrong]
        return wrong[np.argsort(-confidence, kind="stable")][:count]


def write_predictions(folder: Path, logits: torch.Tensor, labels: torch.Tensor, *, epoch: int) -> None:
    """Atomically write the predictions of a run: logits (N, 10) and labels (N,) of all test images after `epoch`."""
    tensors = {"logits": logits.float(), "labels": labels.to(torch.uint8)}
    write_tensors(folder / PREDICTIONS_NAME, tensors, {_EPOCH: str(epoch)})


def read_predictions(folder: Path) -> Predictions | None:
    """The predictions of a run, None where it kept none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / PREDICTIONS_NAME
    if not path.exists():
        return None
    hint = "remove it, and python -m cifarfast.report computes it again"
    tensors, facts = read_tensors(path, max_bytes=_MAX_BYTES, hint=hint)
    try:
        logits, labels, epoch = tensors["logits"].numpy(), tensors["labels"].numpy(), int(facts[_EPOCH])
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} holds no predictions: {hint}") from None
    right_shapes = logits.ndim == 2 and logits.shape[1] == CLASSES and labels.shape == logits.shape[:1]
    if not (right_shapes and len(labels) and logits.dtype == np.float32 and labels.dtype == np.uint8):
        raise UserError(f"{path} holds other tensors than logits and labels: {hint}")
    if not np.isfinite(logits).all() or labels.max() >= CLASSES:
        raise UserError(f"{path} holds logits that are not finite, or labels that are no classes: {hint}")
    return Predictions(logits, labels.astype(np.int64), epoch)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share of which `right` of `n` were seen (E. B. Wilson, 1927)."""
    z = 1.959963984540054
    share, scale = right / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
