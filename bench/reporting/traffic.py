"""What a training step must move through memory at the least, worked out from the shapes of the network."""

import math

from cifarfast.model import layer_table
from cifarfast.networks import IMAGE_SHAPE
from cifarfast.networks.resnet import BLOCK_SHAPES
from cifarfast.recipe import Recipe

BYTES_OF: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Size of an activation or a weight in each precision."""
_ADAM_BYTES = 7 * 4


def convolution_bytes(batch_size: int, precision: str) -> int:
    """Bytes that the convolutions must read and write, forward and backward, for one batch.

    Each is read and written once a pass: forward input, weights and output; backward, for the gradient of the input
    (which the first convolution does without), the gradient of the output, the weights and the gradient itself; for
    the gradient of the weights, the gradient of the output, the input and the gradient itself. Pooling comes after
    the convolution, whose output therefore is as wide as its input.

    Raises:
        KeyError: the precision is not in `BYTES_OF`.
    """
    elements = 0
    for place, (input_shape, output_shape) in enumerate(zip((IMAGE_SHAPE, *BLOCK_SHAPES), BLOCK_SHAPES, strict=False)):
        given, weights = batch_size * math.prod(input_shape), 9 * input_shape[0] * output_shape[0]
        made = batch_size * output_shape[0] * input_shape[1] * input_shape[2]
        passes = 3 if place else 2
        elements += passes * (given + weights + made)
    return elements * BYTES_OF[precision]


def step_bytes(batch_size: int, precision: str) -> int:
    """Bytes that a whole step must move: those of its convolutions, and what Adam reads and writes in fp32.

    All between two convolutions (normalisation, ReLU, pooling, dropout, residual sum) can in principle be done where
    the one writes and the other reads: batch statistics need the whole output of a convolution first, which has been
    written by then. The head is too small to count. Adam reads weight, gradient and two moments of every parameter
    and writes weight and moments. So this is a lower bound, and the intensity that follows from it an upper one.

    Raises:
        KeyError: the precision is not in `BYTES_OF`.
    """
    return convolution_bytes(batch_size, precision) + _ADAM_BYTES * _parameters()


def _parameters() -> int:
    return sum(layer.parameters for layer in layer_table(Recipe()))
