"""bf16 in what numba compiles, which has no such type: its bits, the upper half of an fp32. Arithmetic is fp32."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import njit, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

Bits = npt.NDArray[np.uint16]
Rows = npt.NDArray[np.float32]

KEPT = os.access(Path(__file__).parent, os.W_OK)
"""Whether what numba compiles can be kept beside the sources."""
_features = get_host_cpu_features()  # type: ignore[no-untyped-call]
if "+avx512f" in _features.split(",") and vars(numba.config)["CPU_FEATURES"] is None:
    # LLVM takes vectors of 256 bits where it has 512, for the sake of processors that are older than bf16.
    vars(numba.config)["CPU_FEATURES"] = f"{_features},-prefer-256-bit"

MATRIX_UNITS = bool(torch.cpu.get_capabilities().get("amx_bf16"))
"""Whether this processor has AMX."""


def _seen_as(kind: types.Type, given: types.Type) -> Any:
    """What passes call to take the bits of one type for those of another."""

    @intrinsic
    def seen(_context: Any, _value: Any) -> tuple[Any, Any]:
        return kind(given), lambda context, builder, _, values: builder.bitcast(values[0], context.get_value_type(kind))

    return seen


_fp32_of, _bits_of = _seen_as(types.float32, types.uint32), _seen_as(types.uint32, types.float32)


@njit(cache=KEPT)
def to_fp32(bits: np.uint16) -> np.float32:
    """The fp32 of the same value as these bits of bf16."""
    value: np.float32 = _fp32_of(np.uint32(bits) << np.uint32(16))
    return value


@njit(cache=KEPT)
def to_bf16(value: np.float32) -> np.uint16:
    """The bits of an fp32 rounded to bf16: to nearest, ties to even."""
    bits = _bits_of(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(cache=KEPT)
def power_of_two(exponent: np.int32) -> np.float32:
    """2 to the power of -126 to 127."""
    value: np.float32 = _fp32_of(np.uint32(exponent + np.int32(127)) << np.uint32(23))
    return value


@njit(cache=KEPT)
def widen(bits: Bits, wide: Rows) -> None:
    """`to_fp32` of each."""
    for c in range(len(bits)):
        wide[c] = to_fp32(bits[c])


@njit(cache=KEPT)
def narrow(wide: Rows, bits: Bits) -> None:
    """`to_bf16` of each."""
    for c in range(len(bits)):
        bits[c] = to_bf16(wide[c])


def runs_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are passes for images of this dtype on this device."""
    return device.type == "cpu" and dtype == torch.bfloat16


def run(kernel: Callable[..., None], *tensors: torch.Tensor) -> None:
    """Run a pass with as many threads as torch has."""
    # Torch's kind of threads come to rest sooner than TBB's, and torch's own wait for the cores.
    vars(numba.config)["THREADING_LAYER_PRIORITY"] = ["omp", "tbb", "workqueue"]
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, vars(numba.config)["NUMBA_NUM_THREADS"]))
    if torch.get_num_threads() != threads:  # numba has started its own, and told OpenMP of as many as there can be
        torch.set_num_threads(threads)
    kernel(*((one.view(torch.uint16) if one.dtype == torch.bfloat16 else one).detach().numpy() for one in tensors))
