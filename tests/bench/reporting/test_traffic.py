import torch
from torch import nn

from bench.reporting.traffic import convolution_bytes, step_bytes
from cifarfast.model import build_model
from cifarfast.networks import IMAGE_SHAPE
from cifarfast.recipe import Recipe

BATCH = 4


def test_every_convolution_reads_and_writes_all_it_needs_once_a_pass() -> None:
    """Counted a second time from the tensors that a real forward pass sees."""
    model, elements = build_model(Recipe(dropout=0.0), seed=0), []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        (given,) = inputs
        weight = next(module.parameters())
        backward = 2 if given.requires_grad else 1  # the images need no gradient
        elements.append((1 + backward) * (given.numel() + weight.numel() + output.numel()))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.rand(BATCH, *IMAGE_SHAPE))
    assert len(elements) == 8
    assert convolution_bytes(BATCH, "fp32") == 4 * sum(elements)
    assert convolution_bytes(BATCH, "bf16") == 2 * sum(elements)


def test_a_step_reads_and_writes_the_optimizer_s_state_too() -> None:
    parameters = 6_573_130
    for precision in ("fp32", "fp16"):
        assert step_bytes(BATCH, precision) == convolution_bytes(BATCH, precision) + 4 * 7 * parameters
