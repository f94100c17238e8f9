"""A tree of image files: `train/<class>/*.png|jpg` and `test/<class>/*.png|jpg`.

Hidden files are ignored; a file of any other kind is refused, because leaving images out in silence
would be worse than asking for it to be moved away.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cifarfast.dataset.beton import CLASSES, IMAGE_SHAPE, Beton
from cifarfast.dataset.manifest import CLASS_NAME, SPLITS
from cifarfast.errors import UserError
from data_prep.progress import stage
from data_prep.sources.base import CIFAR10_CLASSES, Dataset

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_IMAGE_BYTES = 1 << 20
"""Of one file; the pixels take 3,072."""
_FORMATS = ("PNG", "JPEG")
_SIZE = (IMAGE_SHAPE[1], IMAGE_SHAPE[0])


def is_tree(path: Path) -> bool:
    """Whether there is a folder for each split."""
    return all((path / split).is_dir() for split in SPLITS)


@dataclass(frozen=True)
class Tree:
    """An image tree."""

    name: str
    root: Path

    def digest(self) -> str:
        """SHA-256 over the relative path, size and modification time of every image: quick, if not proof."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for path in (path for folder in _class_folders(self.root / split) for path in _images(folder)):
                status = path.stat()
                digest.update(os.fsencode(path.relative_to(self.root)))  # which need not be UTF-8
                digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def load(self) -> Dataset:
        """Decode every image; labels follow the alphabetical order of the class folders, as in CIFAR-10."""
        classes = {split: tuple(folder.name for folder in _class_folders(self.root / split)) for split in SPLITS}
        names = classes["train"]
        if names != classes["test"]:
            odd = sorted(set(names) ^ set(classes["test"]))
            raise UserError(
                f"{self.root}: train and test must have the same classes, but {', '.join(odd)} is in one only"
            )
        return Dataset(
            kind="cifar10" if names == CIFAR10_CLASSES else "custom",
            official=False,
            class_names=names,
            train=self._load_split("train"),
            test=self._load_split("test"),
        )

    def _load_split(self, split: str) -> Beton:
        paths = [_images(folder) for folder in _class_folders(self.root / split)]
        flat = [path for images in paths for path in images]
        with stage(f"reading {self.root / split}", total=len(flat)) as advance:
            images = _decode_all(flat, advance)
        return Beton(images, np.repeat(np.arange(CLASSES), [len(images) for images in paths]))


def _class_folders(split: Path) -> list[Path]:
    folders = _visible(split)
    for path in folders:
        if not path.is_dir():
            raise UserError(f"{path} is not a class folder: move it out of {split}")
        if not re.search(CLASS_NAME, path.name):
            raise UserError(f"{path} is no name for a class (printable text of at most 100 characters): rename it")
    if len(folders) != CLASSES:
        raise UserError(f"{split} has {len(folders)} class folders, not {CLASSES}: the network tells ten classes apart")
    return folders


def _images(folder: Path) -> list[Path]:
    paths = _visible(folder)
    for path in paths:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise UserError(f"{path} is not a {', '.join(SUFFIXES)} file: move it out of the tree")
    if not paths:
        raise UserError(f"{folder} holds no images: every class needs at least one")
    return paths


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _decode_all(paths: Sequence[Path], advance: Callable[[int], None]) -> np.ndarray:
    images = np.empty((len(paths), *IMAGE_SHAPE), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow only warns of what it could not read properly
        for i, path in enumerate(paths):
            images[i] = _decode(path)
            advance(1)
    return images


def _decode(path: Path) -> np.ndarray:
    if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
        raise UserError(f"{path} has {size} bytes, too many for 32x32 pixels: convert or remove it")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # Known from the header, before a pixel is decoded.
            found = f"{image.width}x{image.height} {image.mode}"
            fits = image.size == _SIZE and image.mode == "RGB"
            image.verify()  # the checksums of a PNG, which decoding passes over
        if fits:
            with Image.open(path, formats=_FORMATS) as image:
                return np.asarray(image)
    except Exception as error:  # noqa: BLE001 (Pillow raises many kinds for damaged files)
        raise UserError(f"{path} cannot be read as an image ({error}): replace or remove it") from None
    raise UserError(f"{path} is {found}, not {_SIZE[0]}x{_SIZE[1]} RGB: convert or remove it")
