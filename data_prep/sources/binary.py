"""The official binary version: files of raw records."""

import numpy as np

from cifarfast.errors import UserError
from data_prep.sources.records import RECORD_BYTES, Format, Records


def decode(content: bytes, where: str) -> Records:
    """Cut the content of a `.bin` file into records.

    Raises:
        UserError: it is not a whole number of records.
    """
    if len(content) % RECORD_BYTES:
        raise UserError(
            f"{where} has {len(content)} bytes, not a whole number of {RECORD_BYTES}-byte records: "
            "it is truncated or not CIFAR-10's binary version, get the data again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)


def class_names(content: bytes, _where: str) -> list[str]:
    """The lines of `batches.meta.txt`."""
    return content.decode("utf-8", errors="replace").split()


FORMAT = Format(
    folder="cifar-10-batches-bin",
    suffix=".bin",
    meta="batches.meta.txt",
    decode=decode,
    class_names=class_names,
)
