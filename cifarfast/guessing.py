"""What the network of a run sees in image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cifarfast.augment import normalize
from cifarfast.errors import UserError
from cifarfast.image_files import read_image
from cifarfast.runfolder import MODEL_NAME, read_config, read_model

# The activations of so many images take less than a gigabyte.
_BATCH = 512


@dataclass(frozen=True)
class Guess:
    """A class that an image may be of."""

    name: str
    """Its name."""
    probability: float
    """Its softmax, 0 to 1."""


def guess_files(
    run: Path, paths: Sequence[Path], *, top: int = 3
) -> tuple[list[tuple[Path, list[Guess]]], list[UserError]]:
    """What is in image files, on the CPU in fp32.

    Args:
        run: the run folder.
        paths: the files; `image_files.read_image` says how they are read.
        top: how many classes to name for each, the most probable first.

    Returns:
        The guesses for every file that can be read, in their order, and for every other one why it cannot.

    Raises:
        UserError: the run is unusable.
    """
    config, model = read_config(run), read_model(run)
    read, pixels, failed = [], [], []
    for path in paths:
        try:
            pixels.append(read_image(path))
            read.append(path)
        except UserError as error:
            failed.append(error)
    if not read:
        return [], failed
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), _BATCH)
        logits = torch.cat([model(normalize(part, mean, std, torch.float32)) for part in parts])
    if not logits.isfinite().all():
        raise UserError(f"{run / MODEL_NAME} answers with numbers that are not finite: name another run")
    best = logits.topk(top).indices  # the softmax of several may be zero
    probabilities = logits.softmax(1).gather(1, best)
    guesses = [
        [Guess(config.class_names[label], value) for label, value in zip(labels, values, strict=True)]
        for labels, values in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]
    return list(zip(read, guesses, strict=True)), failed
