"""The CIFAR-10 record (a label byte, then planes of 32x32 red, green and blue), to which both batch formats boil down.

The layout is that of the binary version described at https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cifarfast.dataset.beton import CLASSES, IMAGE_BYTES, IMAGE_SHAPE, Beton
from cifarfast.errors import UserError
from data_prep.sources.base import CIFAR10_CLASSES, Dataset

Records = npt.NDArray[np.uint8]
"""uint8 (N, 3073)."""

RECORD_BYTES = 1 + IMAGE_BYTES
IMAGES_PER_BATCH = 10_000
TEST_BATCH = "test_batch"
OFFICIAL_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
BATCHES = tuple(OFFICIAL_SHA256)


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one of the two official versions stores its batches."""

    folder: str
    """Name of the folder inside the archive."""
    suffix: str
    """What follows `data_batch_1` in a file name."""
    meta: str
    """Name of the file with the class names."""
    decode: Callable[[bytes, str], Records]
    """Content of a batch file and where it is (for messages) to records."""
    class_names: Callable[[bytes, str], Sequence[object]]
    """Content of the `meta` file and where it is to the class names in it."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that are read."""
        return (*(batch + self.suffix for batch in BATCHES), self.meta)


def assemble(contents: Mapping[str, bytes], layout: Format, where: Callable[[str], str], *, any_count: bool) -> Dataset:
    """Decode, check and join the batch files of one format.

    Args:
        contents: bytes of each file, by file name.
        layout: their format.
        where: a file name to the place that messages mention.
        any_count: accept batches that do not hold 10,000 images.

    Raises:
        UserError: a batch is missing or damaged, or the class names are not CIFAR-10's.
    """
    if layout.meta in contents:
        _check_class_names(layout.class_names(contents[layout.meta], where(layout.meta)), where(layout.meta))
    batches = {}
    for batch in BATCHES:
        file = batch + layout.suffix
        if file not in contents:
            raise UserError(f"{where(file)} is missing: all six batches are needed, get the data again")
        batches[batch] = layout.decode(contents[file], where(file))
        _check_records(batches[batch], where(file), any_count=any_count)
    return Dataset(
        kind="cifar10",
        official=all(hashlib.sha256(batches[name].data).hexdigest() == OFFICIAL_SHA256[name] for name in BATCHES),
        class_names=CIFAR10_CLASSES,
        train=_split([batches[name] for name in BATCHES if name != TEST_BATCH]),
        test=_split([batches[TEST_BATCH]]),
    )


def _check_class_names(names: Sequence[object], where: str) -> None:
    if tuple(names) != CIFAR10_CLASSES:
        raise UserError(
            f"{where} names the classes {', '.join(map(str, names))[:200]}, not CIFAR-10's: wrong data set?"
        )


def _check_records(records: Records, where: str, *, any_count: bool) -> None:
    if len(records) == 0:
        raise UserError(f"{where} holds no images: get the data again")
    if len(records) != IMAGES_PER_BATCH and not any_count:
        raise UserError(
            f"{where} holds {len(records)} images, not {IMAGES_PER_BATCH}: get the data again, or accept it as it is "
            "with --any-count"
        )
    wrong = np.flatnonzero(records[:, 0] >= CLASSES)
    if wrong.size:
        raise UserError(
            f"{where} has label {records[wrong[0], 0]} in record {wrong[0]} (counted from 0), above {CLASSES - 1}: "
            "the file is damaged, get the data again"
        )


def _split(batches: Sequence[Records]) -> Beton:
    labels = np.concatenate([batch[:, 0] for batch in batches]).astype(np.int64)
    images = np.empty((len(labels), *IMAGE_SHAPE), dtype=np.uint8)
    np.concatenate([batch[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches], out=images)
    return Beton(images, labels)
