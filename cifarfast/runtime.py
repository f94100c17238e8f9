"""How a recipe is executed: what was asked for. Speed is a function of the recipe and of this."""

import os
from dataclasses import dataclass
from typing import Literal

from cifarfast.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Device, compilation, precision, memory layout and loader."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU."""
    compile: bool = False
    """torch.compile the training step and the augmentation."""
    amp: bool = False
    """Automatic mixed precision; on a CPU only where a probe finds it faster than fp32."""
    amp_dtype: Literal["auto", "bf16", "fp16"] = "auto"
    """Precision under --amp; auto takes bf16 where the device has it. A named one is used unprobed."""
    channels_last: bool = True
    """NHWC memory layout of images, activations and weights."""
    cuda_graphs: bool = True
    """On CUDA, capture the step as a graph and replay it: the same kernels, without the host between them."""
    loader: Literal["auto", "ffcv", "resident", "torchvision"] = "auto"
    """What reads the .beton files; auto takes ffcv where it is installed, else resident."""
    workers: int | None = None
    """Threads (ffcv) or processes (torchvision) that load; by default one a core, at most 8."""
    deterministic: bool = False
    """Only deterministic kernels: the same command gives the same weights, bit for bit, more slowly."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            at_least("workers", self.workers, 0)
        if self.amp_dtype != "auto" and not self.amp:
            raise ValueError(f"amp_dtype must be auto without amp, which it is for, not {self.amp_dtype!r}")


def allowed_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
