"""bf16 in what numba compiles, which has no such type: its bits, the upper half of an fp32. Arithmetic is fp32."""

import os
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import njit

Bits = npt.NDArray[np.uint16]
Rows = npt.NDArray[np.float32]

KEPT = os.access(Path(__file__).parent, os.W_OK)
"""Whether what numba compiles can be kept beside the sources."""
MATRIX_UNITS = bool(torch.cpu.get_capabilities().get("amx_bf16"))
"""Whether this processor has AMX."""


@njit(cache=KEPT)
def widen(bits: Bits, wide: npt.NDArray[np.uint32]) -> None:
    """Make fp32, seen as its bits, of bf16."""
    for c in range(len(bits)):
        wide[c] = np.uint32(bits[c]) << np.uint32(16)


@njit(cache=KEPT)
def narrow(wide: npt.NDArray[np.uint32], bits: Bits) -> None:
    """Round fp32, seen as its bits, to bf16: to nearest, ties to even."""
    for c in range(len(bits)):
        odd = (wide[c] >> np.uint32(16)) & np.uint32(1)
        bits[c] = np.uint16((wide[c] + np.uint32(0x7FFF) + odd) >> np.uint32(16))


def runs_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are passes for images of this dtype on this device."""
    return device.type == "cpu" and dtype == torch.bfloat16


def run(kernel: Callable[..., None], *tensors: torch.Tensor) -> None:
    """Run a pass with as many threads as torch has."""
    # Torch's kind of threads come to rest sooner than TBB's, and torch's own wait for the cores.
    vars(numba.config)["THREADING_LAYER_PRIORITY"] = ["omp", "tbb", "workqueue"]
    numba.set_num_threads(min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"]))
    kernel(*((one.view(torch.uint16) if one.dtype == torch.bfloat16 else one).detach().numpy() for one in tensors))
