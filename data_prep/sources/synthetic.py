"""A stand-in for machines that cannot get the data: ten classes of coloured, noisy gratings.

A class is an orientation and a spatial frequency of a sinusoidal grating, and a faint tint. Phase, contrast,
brightness, noise, and the position and colour of a distracting disc are random. The tint alone lets a linear
model beat chance; the grating, whose phase is random, takes convolutions to tell apart.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cifarfast.dataset.beton import CLASSES, IMAGE_SHAPE, Beton
from cifarfast.errors import UserError
from data_prep.progress import stage
from data_prep.sources.base import Dataset

VERSION = 1
"""To be raised with any change of the images."""
DEFAULT_SIZES = (50_000, 10_000)
MAX_IMAGES = 1_000_000
_CHUNK = 250
"""Images drawn at once: few enough for the cache."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Synthetic:
    """The stand-in; its images are a function of the two sizes alone."""

    name: str
    train_images: int
    test_images: int

    @classmethod
    def parse(cls, spec: str) -> "Synthetic":
        """From `synthetic` or `synthetic:TRAIN,TEST`.

        Raises:
            UserError: the sizes are not two whole numbers in range.
        """
        if spec == "synthetic":
            return cls(spec, *DEFAULT_SIZES)
        sizes = spec.partition(":")[2].split(",")
        if len(sizes) != 2 or not all(size.isdecimal() and CLASSES <= int(size) <= MAX_IMAGES for size in sizes):
            raise UserError(
                f"source {spec} is not synthetic:TRAIN,TEST with two sizes from {CLASSES} to {MAX_IMAGES}: "
                "try synthetic:5000,1000"
            )
        return cls(spec, int(sizes[0]), int(sizes[1]))

    def digest(self) -> str:
        """SHA-256 of what the images are a function of."""
        return hashlib.sha256(f"synthetic {VERSION} {self.train_images} {self.test_images}".encode()).hexdigest()

    def load(self) -> Dataset:
        """Draw the images."""
        with stage("drawing synthetic images", total=self.train_images + self.test_images) as advance:
            return Dataset(
                kind="synthetic",
                official=False,
                class_names=tuple(f"grating {label}" for label in range(CLASSES)),
                train=_split(self.train_images, 0, advance),
                test=_split(self.test_images, 1, advance),
            )


def _split(count: int, stream: int, advance: Callable[[int], None]) -> Beton:
    rng = np.random.default_rng([VERSION, stream])
    labels = rng.permutation(np.arange(count) % CLASSES)
    images = np.empty((count, *IMAGE_SHAPE), dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = labels[start : start + _CHUNK]
        images[start : start + _CHUNK] = _draw(chunk, rng)
        advance(len(chunk))
    return Beton(images, labels)


def _draw(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """uint8 (N, 32, 32, 3) images of `labels`."""

    def uniform(low: float, high: float, *shape: int) -> Floats:
        """(N, ...) numbers, with axes of length 1 up to four dimensions."""
        draws = rng.random((len(labels), *shape), dtype=np.float32) * (high - low) + low
        return draws.reshape(len(labels), *(1,) * (3 - len(shape)), *shape)

    y, x = (axis[None, :, :, None] for axis in np.mgrid[-1:1:32j, -1:1:32j].astype(np.float32))
    label = labels.astype(np.float32).reshape(-1, 1, 1, 1)

    # Five orientations at two frequencies: neighbours differ by 22.5 degrees or by a factor of 1.8. Half of
    # the images are mirrored, so that flipping an image does not change its class.
    angle = np.float32(np.pi / 8) * (label % 5) + uniform(-0.1, 0.1)
    angle *= np.sign(uniform(-1, 1))
    frequency = np.where(label < 5, np.float32(2.5), np.float32(4.5)) * uniform(0.9, 1.1)
    wave = np.sin(np.float32(np.pi) * frequency * (x * np.cos(angle) + y * np.sin(angle)) + uniform(0, 2 * np.pi))
    grating = wave * (uniform(12, 40) * uniform(0.3, 1, 3))

    thirds = np.arange(3, dtype=np.float32) / 3
    tint = 18 * np.cos(np.float32(2 * np.pi) * (label / CLASSES + thirds))
    disc = (x - uniform(-1, 1)) ** 2 + (y - uniform(-1, 1)) ** 2 < uniform(0.05, 0.2)
    noise = uniform(-25, 25, *IMAGE_SHAPE)
    # Never below 20 or above 240, so that nothing is clipped.
    return (np.where(disc, uniform(45, 215, 3), uniform(105, 155, 3) + tint + grating) + noise).astype(np.uint8)
