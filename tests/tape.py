"""CUDA graphs without CUDA: what a call does is noted operation by operation, and done again with the same tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Tape:
    """`cifarfast.capture.Graphs`: as in a graph, numbers are those of the time, and tensors stay where they were."""

    def warm_up(self, call: Callable[[], object]) -> None:
        call()

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        recorder = _Recorder()
        with recorder:
            call()
        recorder.undo()
        return recorder.replay


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], list[torch.Tensor]]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        result = func(*args, **kwargs)
        written = any(argument.alias_info and argument.alias_info.is_write for argument in func._schema.arguments)
        if written or not _storages(result) & _storages((args, kwargs)):  # else it is a view, and stays one
            self._calls.append((func, args, kwargs, _tensors(result)))
        return result

    def undo(self) -> None:
        """Capturing does nothing."""
        for storage, bits in self._before.values():
            storage.copy_(bits, non_blocking=False)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self._calls:
            for kept, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
                if kept is not new:
                    kept.untyped_storage().copy_(new.untyped_storage(), non_blocking=False)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storages(tree: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}
