"""What every source yields."""

from dataclasses import dataclass
from typing import Protocol

from cifarfast.dataset.beton import Beton
from cifarfast.dataset.manifest import Kind

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in memory."""

    kind: Kind
    """`cifar10`, `custom` or `synthetic`."""
    official: bool
    """Whether all six batches are byte for byte those of the official CIFAR-10."""
    class_names: tuple[str, ...]
    """Names of the labels 0 to 9."""
    train: Beton
    """uint8 images (N, 32, 32, 3) and int64 labels (N,) of the training split."""
    test: Beton
    """The same of the test split."""


class Source(Protocol):
    """Something that a data set can be loaded from."""

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    def digest(self) -> str:
        """Identifies the content, within a second or so, so that a conversion can be recognised as up to date."""
        ...

    def load(self) -> Dataset:
        """Read and check everything.

        Raises:
            UserError: anything is missing, damaged, or not what it should be.
        """
        ...
