"""Networks that are their own mirror images, and so see an image and its mirror image alike.

Channels go in pairs: the filters of one are those of the other, mirrored, and of what the one sees to the left the
other sees to the right (T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", arXiv:1602.07576). So
every step learns of both images, which otherwise takes two. No layer knows of it: weights that begin so stay so if
every step is made so.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn


class Mirrored(Protocol):
    """A network that knows its mirror image: the one that makes of mirrored images what it makes of images."""

    def mirror_image(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What its mirror image has where it has `tensor`.

        Args:
            name: of a parameter or of running statistics, as `named_parameters` and `named_buffers` have it.
            tensor: of that shape: the thing itself, or a gradient.
        """

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """As a module has it."""

    def named_buffers(self) -> Iterable[tuple[str, torch.Tensor]]:
        """As a module has it."""


def symmetrise_gradients(network: Mirrored) -> None:
    """Make all gradients those of images and mirrored images together, on average."""
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            _symmetrise(network, name, parameter.grad)


def symmetrise(network: Mirrored) -> None:
    """Make what training changes the mean of itself and its mirror image: what rounding put between them is gone."""
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    running = [(name, buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point()]
    for name, tensor in (*trained, *running):
        _symmetrise(network, name, tensor)


@torch.no_grad()
def _symmetrise(network: Mirrored, name: str, tensor: torch.Tensor) -> None:
    tensor.add_(network.mirror_image(name, tensor)).mul_(0.5)


def halves_swapped(tensor: torch.Tensor, *dims: int) -> torch.Tensor:
    """Both halves of each of these dimensions, of even length, in the place of the other."""
    return tensor.roll([tensor.shape[dim] // 2 for dim in dims], dims)
