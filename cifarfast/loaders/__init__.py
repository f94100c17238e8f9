"""Bytes to batches: one interface (`Loader`), three implementations."""

from typing import TYPE_CHECKING

import torch

from cifarfast.errors import UserError
from cifarfast.loaders.base import Batch, Feed, Loader, LoaderName, check_augmentation

if TYPE_CHECKING:
    from cifarfast.recipe import Augmentation

__all__ = ["Batch", "Feed", "Loader", "LoaderName", "check_augmentation", "open_loader"]


def open_loader(
    name: LoaderName,
    feed: Feed,
    *,
    device: torch.device,
    workers: int | None,
    augmentation: "Augmentation | None",
    mean: tuple[float, float, float],
) -> Loader:
    """Open the loader called `name`; `auto` is `ffcv` where FFCV can be imported, else `resident`.

    Args:
        name: which loader.
        feed: which images, in which order.
        device: where the batches go.
        workers: threads (ffcv) or processes (torchvision); None means one a CPU, at most 8. More than
            the CPUs that the process may use are never started.
        augmentation: what `torchvision` does to training images; the others leave it to the device.
        mean: mean of each channel, 0 to 1, with which `torchvision` fills borders and holes.

    Raises:
        UserError: a library that the named loader needs is missing, or the file is unusable.
        ValueError: the name is unknown.
    """
    if name == "resident":
        return _resident(feed, device)
    if name == "torchvision":
        return _torchvision(feed, device, workers, augmentation, mean)
    if name not in ("auto", "ffcv"):
        raise ValueError(f"loader must be auto, ffcv, resident or torchvision, not {name!r}")
    try:
        from cifarfast.loaders.ffcv_loader import FfcvLoader
    except (ImportError, OSError) as error:  # OSError: a shared library that FFCV loads by hand
        if name == "auto":
            return _resident(feed, device)
        raise UserError(
            f"the ffcv loader cannot be used ({error}): install the system packages libopencv-dev, "
            "libturbojpeg0-dev, pkg-config and g++, then pip install 'cifarfast[ffcv]'; or take --loader resident"
        ) from None
    return FfcvLoader(feed, device=device, workers=workers)


def _resident(feed: Feed, device: torch.device) -> Loader:
    from cifarfast.loaders.resident import ResidentLoader

    return ResidentLoader(feed, device=device)


def _torchvision(
    feed: Feed,
    device: torch.device,
    workers: int | None,
    augmentation: "Augmentation | None",
    mean: tuple[float, float, float],
) -> Loader:
    try:
        from cifarfast.loaders.torchvision_loader import TorchvisionLoader
    except ImportError as error:
        raise UserError(
            f"the torchvision loader cannot be used ({error}): pip install torchvision, or take --loader resident"
        ) from None
    return TorchvisionLoader(feed, device=device, workers=workers, augmentation=augmentation, mean=mean)
