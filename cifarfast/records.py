"""JSON that somebody else may have written, read into frozen dataclasses: every field is there and of its type."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cifarfast.errors import UserError

T = TypeVar("T")


class _Versioned(msgspec.Struct):
    schema: int


def decode(raw: bytes, kind: type[T], *, where: Path, hint: str) -> T:
    """`raw`, JSON, as an instance of the dataclass `kind`; fields that it does not know are passed over.

    Args:
        where: the file that the bytes are from, for the messages.
        hint: what to do about a file that cannot be used.

    Raises:
        UserError: it is not JSON, or a field is missing or not what it should be.
    """
    try:
        return msgspec.json.decode(raw, type=kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UserError(f"{where} is damaged ({error}): {hint}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"{where} is not JSON: {hint}") from None


def decode_versioned(raw: bytes, kind: type[T], *, schema: int, where: Path, hint: str) -> T:
    """`decode` of a record with a field `schema`; one that is newer than `schema` is refused first."""
    found = decode(raw, _Versioned, where=where, hint=hint).schema
    if found > schema:
        raise UserError(f"{where} has schema {found}, newer than {schema}: update cifarfast, or {hint}")
    return decode(raw, kind, where=where, hint=hint)


def plain(value: Any) -> Any:
    """A record as what JSON knows: dataclasses as dictionaries, paths as strings."""
    return msgspec.to_builtins(value, enc_hook=str)


def _path(kind: type[Any], value: Any) -> Any:
    if kind is not Path or not isinstance(value, str):
        raise NotImplementedError(f"no {kind} in JSON")
    return Path(value)
