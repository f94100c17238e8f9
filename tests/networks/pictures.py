"""Images with the statistics of photographs, for what is whitened by them."""

import torch
from torch.nn import functional as F

from cifarfast.randomness import generator


def pictures(count: int, size: int = 32) -> torch.Tensor:
    """(count, 3, size, size): smooth, as photographs are, with channels that go together; of mean zero, nearly."""
    noise = torch.randn(count, 3, size + 2, size + 2, generator=generator(0, "pictures"))
    smooth = F.avg_pool2d(noise, 3, 1)
    return 2 * (smooth + 0.5 * smooth.roll(1, 1))
