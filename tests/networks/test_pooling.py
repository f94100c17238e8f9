from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks.pooling import MaxPool, global_max_pool, max_pool

Pool = Callable[[torch.Tensor], torch.Tensor]


def pooled(pool: Pool, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What comes out, and the gradient of a weighted sum of it."""
    images = images.clone().requires_grad_()
    out = pool(images)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), torch.autograd.grad(out, images, weights)[0]


def equal_pixels(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Few values, so that most windows hold their largest more than once."""
    values = torch.randint(-2, 2, (3, 5, height, width), generator=torch.Generator().manual_seed(0))
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 8), (8, 9), (31, 31), (2, 3)])
def test_it_is_that_of_torch_gradients_and_layout_too(height: int, width: int, dtype: torch.dtype) -> None:
    images = equal_pixels(height, width, dtype)
    ours, theirs = pooled(MaxPool.apply, images), pooled(lambda x: F.max_pool2d(x, 2), images)
    for mine, reference in zip(ours, theirs, strict=True):
        assert torch.equal(mine, reference)
        assert (mine.dtype, mine.stride()) == (reference.dtype, reference.stride())


def test_not_a_number_comes_through() -> None:
    images = equal_pixels(4, 4, torch.float32)
    images[1, 2, 3, 3] = torch.nan
    assert torch.equal(MaxPool.apply(images).isnan(), F.max_pool2d(images, 2).isnan())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_compiled_it_is_the_same_to_the_last_bit(layout: torch.memory_format) -> None:
    images = equal_pixels(6, 7, torch.bfloat16).contiguous(memory_format=layout)
    compiled = torch.compile(max_pool, dynamic=False)
    for mine, reference in zip(pooled(compiled, images), pooled(max_pool, images), strict=True):
        assert torch.equal(mine, reference)
        assert mine.is_contiguous(memory_format=layout)


def test_the_compiler_is_given_torchs_own_but_in_channels_last() -> None:
    given: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Pool:
        given.append(any("max_pool2d" in node.name for node in graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(max_pool, backend=backend, dynamic=False)
    images = equal_pixels(4, 4, torch.float32)
    compiled(images.clone().requires_grad_())
    compiled(images.contiguous().requires_grad_())
    assert given == [False, True]


def test_an_exported_network_has_torchs_own() -> None:
    class Pooling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return max_pool(x)

    program = torch.export.export(Pooling(), (equal_pixels(4, 4, torch.float32),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == [
        "aten.max_pool2d.default"
    ]


@pytest.mark.parametrize("size", [2, 3])
def test_of_all_pixels_it_is_the_largest(size: int) -> None:
    images = torch.randn(4, 5, size, size, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    for mine, reference in zip(pooled(global_max_pool, images), pooled(lambda x: x.amax((2, 3)), images), strict=True):
        torch.testing.assert_close(mine, reference)


def test_compiled_after_a_rounded_activation_it_still_finds_the_largest() -> None:
    """By `amax` all these gradients are 0 / 0."""

    def tail(x: torch.Tensor) -> torch.Tensor:
        return global_max_pool(F.gelu(x + 1))

    images = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    images = images.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(tail, dynamic=False)
    for mine, reference in zip(pooled(compiled, images), pooled(tail, images), strict=True):
        torch.testing.assert_close(mine, reference)
