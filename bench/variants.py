"""What the variants of several benchmarks differ in: loader, precision, memory layout."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar, cast

import numpy as np
import pytest
import torch

from bench.lab import Lab
from cifarfast.device import Device, open_device, probe_bf16
from cifarfast.errors import UserError
from cifarfast.loaders import Batch, Loader
from cifarfast.randomness import generator
from cifarfast.runtime import Runtime

Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels-last"]
Mode = Literal["eager", "compiled"]
Function = TypeVar("Function", bound=Callable[..., Any])

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
BASELINE = "fp32-contiguous-eager"
SLOW = 0.5
"""A precision below this share of the speed of fp32 is emulated: looked at only where there is time."""
FEW_IMAGES = 4
"""Images a call in such a precision."""

every_loader = pytest.mark.parametrize(
    ("loader", "workers"),
    [
        pytest.param("ffcv", None, id="ffcv"),
        pytest.param("resident", None, id="resident"),
        pytest.param("torchvision", 0, id="torchvision-0"),
        pytest.param("torchvision", 2, id="torchvision-2"),
    ],
)


def every_execution(*modes: Mode) -> Callable[[Function], Function]:
    """Parametrizes a benchmark with `precision`, `layout` and `mode`; ids are like `BASELINE`."""

    def decorate(function: Function) -> Function:
        for name, values in (("precision", PRECISIONS), ("layout", ("contiguous", "channels-last")), ("mode", modes)):
            function = pytest.mark.parametrize(name, values)(function)
        return function

    return decorate


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A device in one precision and layout."""

    device: Device
    """The device."""
    emulated: bool
    """Whether the precision is so slow here that only little can be done in it."""
    batch_size: int
    """Images of one call."""
    facts: dict[str, Any]
    """`precision`, `tf32` (whether fp32 products and convolutions run in TF32), `layout`, `mode`, `batch_size`."""


def execution(lab: Lab, precision: Precision, layout: Layout = "channels-last", mode: Mode = "eager") -> Execution:
    """Execute as asked.

    Raises:
        UserError: not in this precision, on this device or in this profile.
    """
    emulated = _emulated(lab, precision)
    batch_size = min(FEW_IMAGES, lab.batch_size) if emulated else lab.batch_size
    runtime = Runtime(device=device_name(lab), channels_last=layout == "channels-last")
    if precision != "fp32":
        runtime = replace(runtime, amp=True, amp_dtype=precision)
    device = open_device(runtime, print)
    facts = {
        "precision": precision,
        "tf32": precision == "fp32" and device.tf32,
        "layout": layout,
        "mode": mode,
        "batch_size": batch_size,
    }
    return Execution(device=device, emulated=emulated, batch_size=batch_size, facts=facts)


def device_name(lab: Lab) -> Literal["cpu", "cuda", "mps"]:
    """What a `Runtime` calls the device that is measured."""
    return cast(Literal["cpu", "cuda", "mps"], lab.device.target.type)


def _emulated(lab: Lab, precision: Precision) -> bool:
    kind = device_name(lab)
    if precision == "fp16" and kind != "cuda":
        raise UserError(f"fp16 is for CUDA, and this is measured on {kind}")
    if precision != "bf16" or kind != "cpu" or (speed := _bf16_speed()) >= SLOW:
        return False
    if lab.profile == "quick":
        raise UserError(
            f"bf16 runs at {speed:.2f} times the speed of fp32 on this CPU: --bench-profile full measures it even so"
        )
    return True


_bf16_speed = cache(probe_bf16)


@cache  # for a CPU is probed, which takes a while
def amp_precision(device: Literal["cpu", "cuda", "mps"]) -> Precision:
    """What --amp comes to on a device."""
    return open_device(Runtime(device=device, amp=True), print).amp_dtype or "fp32"


def check_workers(loader: Loader, asked: int | None) -> None:
    """Refuse a loader with other workers than its variant is named after.

    Raises:
        UserError: there are not enough CPUs for them.
    """
    if asked not in (None, loader.workers):
        raise UserError(f"{asked} workers need as many CPUs, and this process may use {loader.workers}")


def pixels(images: int) -> torch.Tensor:
    """Noise, uint8 (images, 32, 32, 3) on the CPU, always the same."""
    return torch.randint(256, (images, 32, 32, 3), generator=generator(0, "bench")).to(torch.uint8)


def noise(device: Device, images: int) -> Batch:
    """A batch of such pixels on the device, and labels."""
    labels = torch.randint(10, (images,), generator=generator(1, "bench"))
    return Batch(device.send(pixels(images)).permute(0, 3, 1, 2), device.send(labels), np.arange(images))
