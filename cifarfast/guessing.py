"""What the network of a run sees in image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cifarfast.augment import normalize
from cifarfast.errors import UserError
from cifarfast.image_files import read_image
from cifarfast.runfolder import read_config, read_model

Guesses = list[tuple[str, float]]
"""Names of classes and their probabilities, the most probable first."""


def guess_files(run: Path, paths: Sequence[Path], *, top: int) -> tuple[list[tuple[Path, Guesses]], list[UserError]]:
    """The `top` classes of every file that can be read, in one batch on the CPU in fp32, and why others cannot.

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
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        inputs = normalize(images, torch.tensor(config.mean), torch.tensor(config.std), torch.float32)
        best = model(inputs).softmax(1).topk(top)
    names = [[config.class_names[i] for i in row] for row in best.indices.tolist()]
    return [
        (path, list(zip(row, values, strict=True)))
        for path, row, values in zip(read, names, best.values.tolist(), strict=True)
    ], failed
