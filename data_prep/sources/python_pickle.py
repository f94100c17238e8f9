"""The official python version: pickled dictionaries, read without running anything that is in them.

A pickle is a program, and unpickling does what it says: it calls what the file names, sets attributes, and hashes
what was built, as often and as deeply as the file likes. So this module has a machine of its own, which knows the
operations that a batch is made of and no others (`pickletools` describes each). Its values are None, numbers, text,
bytes, lists, tuples and dictionaries with text as keys; of the five functions and classes whose names occur in a
batch it knows what they were given, and no array is made of that before it has been checked.
"""

import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifarfast.dataset.beton import IMAGE_BYTES
from cifarfast.errors import UserError
from data_prep.sources.records import Format, Records

_MAX_OPERATIONS = 1_000_000
"""An official batch has some 40,000."""
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NAMES = (*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode")


@dataclass(frozen=True)
class _Name:
    """The name of a function or class: nothing that can be called."""

    text: str

    def __post_init__(self) -> None:
        if self.text not in _NAMES:
            raise ValueError(f"it asks for {self.text.replace(' ', '.')!r}, which no CIFAR-10 batch needs")


@dataclass(frozen=True)
class _Dtype:
    """What `numpy.dtype` was given first."""

    code: str


class _Array:
    """What `numpy.ndarray.__setstate__` was given: version, shape, dtype, whether Fortran order, bytes."""

    def set(self, state: Any) -> None:
        _, self.shape, dtype, self.fortran, self.content = state
        self.code = dtype.code

    def rows(self) -> Records:
        """As uint8 (N, 3072)."""
        shape = (len(self.content) // IMAGE_BYTES, IMAGE_BYTES)
        if self.code != "u1" or self.fortran or self.shape != shape or not isinstance(self.content, bytes):
            raise ValueError(f"data of type {self.code:.20} and not uint8 (N, {IMAGE_BYTES})")
        return np.frombuffer(self.content, dtype=np.uint8).reshape(shape)


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
        for record, label in enumerate(labels):
            if type(label) is not int:
                raise ValueError(f"a label of type {type(label).__name__} in record {record} (counted from 0)")
            if not 0 <= label <= 255:
                raise ValueError(f"label {label} in record {record} (counted from 0)")
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
    """The dictionary that is pickled; its keys are bytes (Python 2) or text."""
    try:
        value = _Machine(content).run()
        if not isinstance(value, dict):
            raise ValueError(f"{type(value).__name__}, not dict")
    except Exception as error:  # noqa: BLE001 (a hostile file can raise anything)
        raise _refusal(where, error) from None
    return value


class _Machine:
    """Runs one pickle; any exception may come of a bad one."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._may_encode = len(content)

    def run(self) -> Any:
        """The value that the pickle stands for, never larger than the pickle by more than a small factor."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(self._content)):
            if count == _MAX_OPERATIONS:
                raise ValueError(f"more than {_MAX_OPERATIONS} operations")
            self._do(operation.name, argument)
        return self._stack.pop()

    def _do(self, operation: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        match operation:
            case "BININT1" | "BININT2" | "BININT" | "INT" | "LONG1" | "LONG":
                stack.append(argument)
            case "SHORT_BINBYTES" | "BINBYTES" | "SHORT_BINUNICODE" | "BINUNICODE" | "UNICODE":
                stack.append(argument)
            case "SHORT_BINSTRING" | "BINSTRING" | "STRING":  # Python 2's
                stack.append(argument.encode("latin1"))
            case "NONE" | "NEWFALSE" | "NEWTRUE":
                stack.append({"NONE": None, "NEWFALSE": False, "NEWTRUE": True}[operation])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}[operation]())
            case "LIST":
                stack.append(self._since_mark())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(operation[-1]))))
            case "DICT":
                stack.append(_with_items({}, self._since_mark()))
            case "APPEND" | "APPENDS":
                items = self._last(1) if operation == "APPEND" else self._since_mark()
                _as(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._last(2) if operation == "SETITEM" else self._since_mark()
                _with_items(_as(dict, stack[-1]), items)
            case "GLOBAL":
                stack.append(_Name(argument))
            case "STACK_GLOBAL":
                module, name = self._last(2)
                stack.append(_Name(f"{_text(module)} {_text(name)}"))
            case "REDUCE":
                name, arguments = self._last(2)
                stack.append(self._called(_as(_Name, name).text, _as(tuple, arguments)))
            case "BUILD":
                (state,) = self._last(1)
                if not isinstance(stack[-1], _Dtype):  # whose state, byte order and the like, single bytes have not
                    _as(_Array, stack[-1]).set(_as(tuple, state))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise ValueError(f"operation {operation}, which no CIFAR-10 batch needs")

    def _called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What the machine keeps of a call."""
        if name in _RECONSTRUCT:
            return _Array()
        if name == "numpy dtype":
            return _Dtype(_text(arguments[0]))
        if name == "_codecs encode":
            text, encoding = arguments
            if _text(encoding) != "latin1":
                raise ValueError(f"text in encoding {_text(encoding):.50}")
            self._may_encode -= len(text)
            if self._may_encode < 0:
                raise ValueError("the same text is encoded again and again")
            return text.encode("latin1")
        raise ValueError(f"a call of {name}")

    def _last(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items


def _with_items(dictionary: dict[str, Any], items: Sequence[Any]) -> dict[str, Any]:
    dictionary.update(zip(map(_text, items[::2]), items[1::2], strict=True))
    return dictionary


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in the place of {kind.__name__}")
    return value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of text")
    return value


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
