"""CUDA graphs: the kernels of a call are captured once, and from then on launched together.

A GPU is done with the small kernels of a step sooner than the host can launch them one by one. As a graph they follow
each other without it (M. Ng et al., "Accelerating PyTorch with CUDA Graphs", PyTorch blog, 2021).
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import torch

from cifarfast.errors import UserError

WARM_UP = 2
"""Calls before the one that is captured: in the first kernels are chosen and gradients get their place in memory, in
the second they are added to."""


class Graphs(Protocol):
    """What captures."""

    def warm_up(self, call: Callable[[], object]) -> None:
        """Make a call that prepares for being captured."""

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """Note what a call would do, without doing it; what is returned does it, each time anew."""


@dataclass(frozen=True)
class CudaGraphs:
    """Those of a CUDA device."""

    device: torch.device
    """The device."""

    def warm_up(self, call: Callable[[], object]) -> None:
        """See `Graphs`; on the stream that captures, for which libraries have workspaces of their own."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            call()
        current.wait_stream(self._stream)

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """See `Graphs`.

        Raises:
            UserError: the call does what no graph can hold, such as waiting for the device.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # What other threads do meanwhile, those of a loader, is none of its business.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                call()
        except RuntimeError as error:
            # Ending a capture that has failed fails too, and does not say why.
            reason = str(error.__context__ or error).partition("\n")[0]
            raise UserError(f"the step cannot be captured as a CUDA graph ({reason}): add --no-cuda-graphs") from error
        return graph.replay

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]


class Captured:
    """A function that works on the device alone, on tensors that stay where they are; after its warm-up, a graph.

    It is captured once for each layout of its arguments. Whatever else it depends on is as it was then for good.

    Args:
        function: of tensors, which may be others at each call, and of hashable values, which tell graphs apart.
        graphs: what captures it.
    """

    def __init__(self, function: Callable[..., object], graphs: Graphs) -> None:
        self._function, self._graphs = function, graphs
        self._calls: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, tuple[list[torch.Tensor], Callable[[], object]]] = {}

    def __call__(self, *arguments: torch.Tensor | Hashable) -> None:
        """Call the function, or do again what it did."""
        layout = tuple(map(_layout, arguments))
        if layout not in self._captured:
            self._calls[layout] += 1
            if self._calls[layout] <= WARM_UP:
                self._graphs.warm_up(partial(self._function, *arguments))
                return
            kept = [argument.clone() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
            replay = self._graphs.capture(partial(self._function, *kept))
            self._captured[layout] = [tensor for tensor in kept if isinstance(tensor, torch.Tensor)], replay
        inputs, replay = self._captured[layout]
        given = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        for tensor, new in zip(inputs, given, strict=True):
            tensor.copy_(new)
        replay()


def _layout(argument: torch.Tensor | Hashable) -> Hashable:
    if isinstance(argument, torch.Tensor):
        return argument.shape, argument.stride(), argument.dtype
    return argument
