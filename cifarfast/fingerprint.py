"""On what a figure was measured: stable facts about the machine, the versions and the code."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cifarfast.runtime import allowed_cores

if TYPE_CHECKING:
    from cifarfast.device import Device

PACKAGES = ("torch", "torchvision", "ffcv", "numba", "numpy")


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Two runs with the same fingerprint may be compared for speed."""

    cpu: str | None
    """Model of the processor."""
    cpu_isa: str
    """Widest vector instructions that torch uses on it, and whether it has bf16 ones."""
    cores_allowed: int
    """Processors that this process may use."""
    memory_bytes: int | None
    """Physical memory."""
    gpu: str | None
    """Name of the GPU in use, None on a CPU."""
    cuda: str | None
    """CUDA version that torch was built for, where it is in use."""
    system: str
    """Operating system and architecture."""
    python: str
    """Version of Python."""
    packages: dict[str, str | None]
    """Versions of the packages that decide speed, None where one is not installed."""
    git_commit: str | None
    """Commit of the code, None outside a checkout."""
    git_dirty: bool | None
    """Whether tracked files differed from the commit."""


def take_fingerprint(device: "Device") -> Fingerprint:
    """Ask the machine; what it does not tell is None."""
    import cpuinfo  # slow, and not needed to read a fingerprint
    import torch

    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    info = cpuinfo.get_cpu_info()
    bf16 = any(flag in info.get("flags", ()) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return Fingerprint(
        cpu=info.get("brand_raw"),
        cpu_isa=torch.backends.cpu.get_cpu_capability() + (" with bf16" if bf16 else ""),
        cores_allowed=allowed_cores(),
        memory_bytes=_memory_bytes(),
        gpu=device.name(),
        cuda=torch.version.cuda if device.target.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        git_commit=commit,
        git_dirty=None if status is None else bool(status),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
