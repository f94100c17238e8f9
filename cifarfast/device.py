"""The one place that knows what differs between CPU, CUDA and MPS.

Autocast, gradient scaling, compilation, memory figures, synchronisation and fast-math settings are asked
of a `Device`; nothing else in the package tests for a device type.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch.nn import functional as F

from cifarfast.capture import Captured, CudaGraphs, Graphs
from cifarfast.errors import UserError
from cifarfast.heap import keep_freed_memory
from cifarfast.runtime import Runtime

P = ParamSpec("P")
T = TypeVar("T")
ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

AmpDtype = Literal["bf16", "fp16"]
TORCH_DTYPES: dict[AmpDtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device with the precision and layout that are in effect on it."""

    target: torch.device
    """The device itself."""
    amp_dtype: AmpDtype | None
    """Precision of autocast, None for fp32 throughout."""
    memory_format: torch.memory_format
    """Layout of images, activations and weights."""
    graphs: Graphs | None = None
    """What captures steps; None where the host launches each kernel by itself."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype that the network's convolutions run in."""
        return torch.float32 if self.amp_dtype is None else TORCH_DTYPES[self.amp_dtype]

    @property
    def reads_are_free(self) -> bool:
        """Whether reading a result stalls nothing: true where the host computes it anyway."""
        return self.target.type == "cpu"

    @property
    def pinned(self) -> bool:
        """Whether copies to the device go through page-locked memory, to overlap with compute."""
        return self.target.type == "cuda"

    @property
    def tf32(self) -> bool:
        """Whether fp32 products and convolutions run in TF32 here."""
        return self.target.type == "cuda" and torch.backends.cudnn.allow_tf32

    @property
    def cudnn_benchmark(self) -> bool:
        """Whether cuDNN tries its algorithms and keeps the fastest; elsewhere that setting of torch changes nothing."""
        return self.target.type == "cuda" and torch.backends.cudnn.benchmark

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the forward pass and the loss are computed."""
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.target.type, dtype=self.compute_dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16; does nothing in the other precisions."""
        return torch.amp.GradScaler(self.target.type, enabled=self.amp_dtype == "fp16")

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy to the device, without waiting for it where that is possible."""
        if self.pinned:
            tensor = tensor.pin_memory()
        return tensor.to(self.target, non_blocking=self.pinned)

    def place(self, model: ModuleT) -> ModuleT:
        """Move a module to the device, in the memory layout that is in effect."""
        return model.to(self.target).to(memory_format=self.memory_format)

    def compile(self, function: Callable[P, T]) -> Callable[P, T]:
        """torch.compile for the static shapes of training."""
        return torch.compile(function, dynamic=False)

    def captured(self, function: Callable[..., object]) -> Callable[..., object]:
        """The function, as a graph where this device has them; what it may do is in `Captured`."""
        return function if self.graphs is None else Captured(function, self.graphs)

    @contextmanager
    def varying_batches(self) -> Iterator[None]:
        """Batches of many sizes: cuDNN does not stop at each new one to try its algorithms."""
        tries = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = tries

    def synchronize(self) -> None:
        """Wait until everything that was asked of the device is done."""
        if self.target.type == "cuda":
            torch.cuda.synchronize(self.target)
        elif self.target.type == "mps":
            torch.mps.synchronize()

    def peak_memory_bytes(self) -> int:
        """Most memory in use so far: allocated by torch on a GPU, resident in the process on a CPU."""
        if self.target.type == "cuda":
            return torch.cuda.max_memory_allocated(self.target)
        if self.target.type == "mps":
            return torch.mps.driver_allocated_memory()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB

    def name(self) -> str | None:
        """Name of the GPU, None on a CPU."""
        if self.target.type == "cuda":
            return torch.cuda.get_device_name(self.target)
        return "Apple GPU" if self.target.type == "mps" else None


def open_device(runtime: Runtime, note: Callable[[str], None], *, keep_memory: bool = True) -> Device:
    """The device that a runtime asks for, with the fast settings of a speed run.

    Args:
        note: told in one line of each choice that differs from what was asked.
        keep_memory: whether a CPU's freed memory stays with this process, see `cifarfast.heap`.

    Raises:
        UserError: the device is not available here.
    """
    kind = _choose(runtime.device)
    if kind == "cpu" and keep_memory:
        keep_freed_memory()
    _fast_math(kind, deterministic=runtime.deterministic)
    amp_dtype = _amp_dtype(kind, runtime, note) if runtime.amp else None
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    target = torch.device(kind)
    graphs = CudaGraphs(target) if kind == "cuda" and runtime.cuda_graphs else None
    return Device(target=target, amp_dtype=amp_dtype, memory_format=layout, graphs=graphs)


def probe_bf16(*, rounds: int = 5) -> float:
    """How many times faster than fp32 a bf16 convolution trains on this CPU (the shortest of each, interleaved).

    Other programs only make times longer, and where they take most of the processor, most of the times.
    A 3x3 convolution 128 to 128 on 32 images of 16x16, forward and backward: the shape of the network's
    residual block. Processors without bf16 instructions emulate them and come out far below 1.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for repetition in range(rounds + 1):
        for dtype, times in seconds.items():
            images = torch.ones(32, 128, 16, 16, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
            weight = torch.ones(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
            start = time.perf_counter()
            torch.autograd.backward(F.conv2d(images, weight, padding=1).sum())
            if repetition:  # the first one chooses the kernels
                times.append(time.perf_counter() - start)
    fp32, bf16 = map(min, seconds.values())
    return fp32 / bf16


def _choose(asked: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(kind for kind, there in available.items() if there)
    if not available[asked]:
        raise UserError(f"--device {asked}: this machine or this build of torch has none; use --device cpu")
    return asked


def _amp_dtype(kind: str, runtime: Runtime, note: Callable[[str], None]) -> AmpDtype | None:
    if runtime.amp_dtype != "auto":
        return runtime.amp_dtype
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if kind == "mps":
        return "fp16"
    ratio = probe_bf16()
    if ratio > 1.0:
        return "bf16"
    note(f"amp: bf16 runs at {ratio:.2f} times the speed of fp32 on this CPU, so training stays in fp32")
    return None


def _fast_math(kind: str, *, deterministic: bool) -> None:
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, for products and, below, for convolutions
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it to be deterministic
    torch.use_deterministic_algorithms(deterministic)


def forget_compilations() -> None:
    """Let `compile_cache` speak of what is compiled from here on."""
    from torch._dynamo.utils import counters  # imports the compiler, which evaluation and reports do without

    counters.clear()


def compile_cache() -> Literal["cold", "warm"] | None:
    """Whether this process found every compiled kernel in the cache; None where torch does not say."""
    from torch._dynamo.utils import counters

    inductor = counters["inductor"]
    if inductor["fxgraph_cache_miss"]:
        return "cold"
    return "warm" if inductor["fxgraph_cache_hit"] or counters["aot_autograd"]["autograd_cache_hit"] else None
