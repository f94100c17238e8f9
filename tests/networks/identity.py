"""Whether a convolution hands on what it gets."""

import torch
from torch import nn


def begins_as_identity(conv: nn.Conv2d) -> bool:
    """Whether the first outputs are the inputs, and the others, if any, are not nothing."""
    images = torch.randn(2, conv.in_channels, 5, 5)
    outputs, same = conv(images), min(conv.in_channels, conv.out_channels)
    assert outputs.shape == (2, conv.out_channels, 5, 5)
    handed_on = torch.allclose(outputs[:, :same], images[:, :same], atol=1e-5)
    return handed_on and (conv.out_channels == same or bool(outputs[:, same:].std() > 0.1))
