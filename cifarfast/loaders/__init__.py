"""Bytes to batches: one interface (`Loader`), three implementations."""

from typing import TYPE_CHECKING, Literal

import torch

from cifarfast.dataset.beton import IMAGE_SHAPE
from cifarfast.errors import UserError
from cifarfast.loaders.base import Batch, Feed, Loader

if TYPE_CHECKING:
    from cifarfast.recipe import Augmentation

__all__ = ["Batch", "Feed", "Loader", "LoaderName", "check_augmentation", "open_loader"]

LoaderName = Literal["auto", "ffcv", "resident", "torchvision"]


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
        if feed.train and augmentation is not None:
            check_augmentation(name, augmentation)
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


def check_augmentation(name: LoaderName, augmentation: "Augmentation") -> None:
    """Refuse what the loader called `name` cannot do to training images; only `torchvision` does anything to them.

    Raises:
        UserError: the hole is as large as the image, or the flip is to alternate.
    """
    if name != "torchvision":
        return
    if augmentation.alternate_flip:
        raise UserError(
            "the torchvision loader flips at random: add --no-alternate-flip (in a study :alternate-flip=false), "
            "or take another --loader"
        )
    hole = augmentation.cutout_size
    if hole >= IMAGE_SHAPE[0]:  # RandomErasing would leave such images as they are
        raise UserError(f"cutout_size must be below {IMAGE_SHAPE[0]} with the torchvision loader, not {hole}")


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
