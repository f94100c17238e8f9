"""JSON that somebody else may have written or damaged, read into frozen dataclasses.

Every field is there and of its type, and none has changed since the record was written: a record is sealed with
a checksum, in a field of its own, over its values (not over how they are written).
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cifarfast.errors import UserError

T = TypeVar("T")

_CHECKSUM = "crc32"


class NewerSchemaError(UserError):
    """The record was written by a newer version of this package."""


class _Versioned(msgspec.Struct):
    schema: int


def decode(raw: bytes, kind: type[T], *, where: Path, hint: str) -> T:
    """`raw`, a sealed record as JSON, as the dataclass `kind`; fields that it does not know are passed over.

    Args:
        where: the file that the bytes are from, for the messages.
        hint: what to do about a file that cannot be used.

    Raises:
        UserError: it is not JSON, a field is missing or not what it should be, or was changed.
    """
    with _told(where, hint):
        return _checked(msgspec.json.decode(raw), kind)


def decode_versioned(raw: bytes, kind: type[T], *, schema: int, where: Path, hint: str) -> T:
    """`decode` of a record with a field `schema`; one that is newer than `schema` raises NewerSchemaError."""
    with _told(where, hint):
        record = msgspec.json.decode(raw)
        found = msgspec.convert(record, _Versioned).schema
        if found > schema:
            raise NewerSchemaError(f"{where} has schema {found}, newer than {schema}: update cifarfast, or {hint}")
        return _checked(record, kind)


def sealed(value: Any) -> dict[str, Any]:
    """A record as what JSON knows (dataclasses as dictionaries, paths as strings), and its checksum.

    Raises:
        UserError: a path is not UTF-8.
    """
    record = msgspec.to_builtins(value, enc_hook=_string)
    record.pop(_CHECKSUM, None)
    return {**record, _CHECKSUM: _checksum(record)}


@contextmanager
def _told(where: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        raise UserError(f"{where} is damaged ({error}): {hint}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"{where} is not JSON: {hint}") from None


def _checked(record: Any, kind: type[T]) -> T:
    found = msgspec.convert(record, type=kind, dec_hook=_path)
    if record.pop(_CHECKSUM, None) != _checksum(record):
        raise msgspec.ValidationError(f"`{_CHECKSUM}` is not the checksum of its values")
    return found


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _string(path: Path) -> str:
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError:
        raise UserError(f"{path} cannot be recorded, because it is not UTF-8: rename it") from None


def _path(kind: type[Any], value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError(f"no {kind} in JSON")
    if not isinstance(value, str):
        raise ValueError(f"Expected a path, got `{type(value).__name__}`")  # with its place, a ValidationError
    return Path(value)
