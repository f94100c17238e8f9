"""What is counted of answers, and how a network is asked about images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cifarfast.augment import normalize
from cifarfast.device import Device
from cifarfast.loaders.base import Batch


@dataclass(frozen=True)
class Score:
    """Mean cross entropy and share of right answers, 0 to 1, over some images."""

    loss: float
    accuracy: float
    images: int


class Statistics:
    """Sums kept on the device and read once: mean loss and accuracy of an epoch."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)

    def add(
        self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor, *, counts: torch.Tensor | None = None
    ) -> None:
        """Count one batch: logits (B, 10), labels (B,), its mean loss (); not where `counts`, bool (), is false."""
        correct = (logits.argmax(1) == labels).sum()
        batch = torch.stack([loss.detach() * len(labels), correct.float(), torch.ones_like(loss) * len(labels)])
        self._sums += batch if counts is None else torch.where(counts, batch, 0.0)

    def take(self) -> Score:
        """Read the sums and start again from zero (waits for the device); NaN where nothing was counted."""
        loss, correct, images = self._sums.tolist()
        self._sums.zero_()
        if not images:
            return Score(loss=math.nan, accuracy=math.nan, images=0)
        return Score(loss=loss / images, accuracy=correct / images, images=int(images))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live state, always the same tensors: copy into them to restore it."""
        return {"sums": self._sums}


@dataclass(frozen=True)
class Evaluation:
    """What a network says about some images, and how much of it is right."""

    score: Score
    """Loss and accuracy."""
    logits: torch.Tensor
    """float32 (N, 10), on the device, in the order of the images."""
    labels: torch.Tensor
    """int64 (N,), on the device."""


def evaluate(
    model: torch.nn.Module, batches: Iterator[Batch], device: Device, *, mean: torch.Tensor, std: torch.Tensor
) -> Evaluation:
    """Ask the raw network, in eval mode, about all batches; its mode is restored."""
    statistics, was_training = Statistics(device.target), model.training
    said: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.eval()
    try:
        # `selective` asks again about as many images as it is unsure of.
        with torch.inference_mode(), device.varying_batches():
            for images, labels, _ in batches:
                inputs = normalize(images, mean, std, device.compute_dtype)
                with device.autocast():
                    logits = model(inputs.contiguous(memory_format=device.memory_format)).float()
                    statistics.add(logits, labels, F.cross_entropy(logits, labels))
                said.append((logits, labels))
    finally:
        model.train(was_training)
    logits, labels = (torch.cat(parts) for parts in zip(*said, strict=True))
    return Evaluation(statistics.take(), logits, labels)
