"""The official python version: pickled dictionaries, read without running anything that is in them.

Unpickling calls whatever the file names, so this unpickler has its own, inert stand-ins for the four
names that occur in a CIFAR-10 batch and refuses every other. Not even numpy is called by the file:
the stand-ins only take down shape, dtype and bytes, which are checked before an array is made of them.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from cifarfast.dataset.beton import IMAGE_BYTES
from cifarfast.errors import UserError
from data_prep.sources.records import Format, Records

_MAX_MEMO = 1_000_000


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like, which single bytes have not


class _Array:
    """What `numpy.ndarray.__setstate__` is given: version, shape, dtype, whether Fortran order, bytes."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, self.fortran, self.content = state
        self.code = dtype.code

    def rows(self) -> Records:
        """As uint8 (N, 3072)."""
        shape = (len(self.content) // IMAGE_BYTES, IMAGE_BYTES)
        if self.code != "u1" or self.fortran or self.shape != shape or not isinstance(self.content, bytes):
            raise ValueError(f"data of shape {self.shape} and type {self.code}, not uint8 (N, {IMAGE_BYTES})")
        return np.frombuffer(self.content, dtype=np.uint8).reshape(shape)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module + '.' + name!r}, which no CIFAR-10 batch needs") from None


def decode(content: bytes, where: str) -> Records:
    """Records of a pickled batch: `data`, uint8 (N, 3072), and `labels`, N integers.

    Raises:
        UserError: it is not such a pickle, or holds anything else that could be run.
    """
    batch = _load(content, where)
    try:
        images, labels = batch["data"].rows(), batch["labels"]
        if not isinstance(labels, list) or len(labels) != len(images):
            raise ValueError("as many labels as images are needed")
        wrong = next((i for i, label in enumerate(labels) if type(label) is not int or not 0 <= label <= 255), None)
        if wrong is not None:
            raise ValueError(f"label {labels[wrong]!r:.50} in record {wrong} (counted from 0)")
    except Exception as error:  # noqa: BLE001 (a hostile file can raise anything)
        raise _refusal(where, error) from None
    return np.column_stack((np.array(labels, dtype=np.uint8), images))


def class_names(content: bytes, where: str) -> list[str]:
    """The `label_names` of `batches.meta`.

    Raises:
        UserError: as `decode` does.
    """
    meta = _load(content, where)
    try:
        return [_text(name) for name in meta["label_names"]]
    except Exception as error:  # noqa: BLE001 (a hostile file can raise anything)
        raise _refusal(where, error) from None


def _load(content: bytes, where: str) -> dict[str, Any]:
    """Unpickle a dictionary; its keys come as bytes (Python 2) or text."""
    try:
        # The C unpickler sizes its memo by the largest index, so a few bytes could ask for gigabytes.
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name.endswith("PUT") and argument is not None and int(argument) > _MAX_MEMO:
                raise ValueError(f"memo index {argument}")
        value = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): item for key, item in value.items()}
    except Exception as error:  # noqa: BLE001 (a hostile file can raise anything)
        raise _refusal(where, error) from None


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _refusal(where: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{where} is not a batch of CIFAR-10's python version ({reason:.200}): get the data again")


FORMAT = Format(
    folder="cifar-10-batches-py",
    suffix="",
    meta="batches.meta",
    decode=decode,
    class_names=class_names,
)
