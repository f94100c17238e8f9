"""What every benchmark is given to work with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cifarfast.dataset.manifest import Manifest
from cifarfast.device import Device

Profile = Literal["quick", "full"]


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Data, device and size of the measurements of one session."""

    folder: Path
    """Converted data."""
    manifest: Manifest
    """Its manifest, after a full check."""
    device: Device
    """The device of a default run, in fp32 and channels-last."""
    profile: Profile
    """`quick` for a look within five minutes on 2 cores, `full` for a report."""
    batch_size: int
    """Images of one training step."""
    scratch: Path
    """An empty folder of this benchmark's own."""
