import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cifarfast.errors import UserError
from cifarfast.records import decode, sealed


@dataclass(frozen=True)
class Pair:
    name: str
    value: float
    path: Path


PAIR = Pair("é", 1e-5, Path("a/b"))
WHERE = Path("some.json")


def refusal(raw: bytes) -> str:
    with pytest.raises(UserError) as refused:
        decode(raw, Pair, where=WHERE, hint="take another")
    assert str(refused.value).startswith("some.json is ")
    assert str(refused.value).endswith(": take another")
    return str(refused.value)


@pytest.mark.parametrize("indent", [None, 2])
def test_what_was_sealed_is_read_however_it_is_written(indent: int | None) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(sealed(PAIR), indent=indent, ensure_ascii=ascii_only).encode()
        assert decode(raw, Pair, where=WHERE, hint="") == PAIR


def test_a_value_that_was_changed_is_noticed_and_one_that_was_sealed_again_is_not() -> None:
    changed = sealed(PAIR) | {"value": 2e-5}
    assert "`crc32` is not the checksum" in refusal(json.dumps(changed).encode())
    raw = json.dumps(sealed(changed)).encode()
    assert decode(raw, Pair, where=WHERE, hint="") == replace(PAIR, value=2e-5)


def test_a_record_without_a_checksum_is_refused() -> None:
    record = sealed(PAIR)
    del record["crc32"]
    assert "`crc32` is not the checksum" in refusal(json.dumps(record).encode())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"name": "\\ud800"}', b'{"a":\xff}'],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    assert "is not JSON" in refusal(raw)


def test_a_wrong_field_is_named_before_the_checksum() -> None:
    assert "`$.value`" in refusal(json.dumps(sealed(PAIR) | {"value": "text"}).encode())
    assert "Expected a path, got `list` - at `$.path`" in refusal(json.dumps(sealed(PAIR) | {"path": ["a"]}).encode())
    assert "Expected `object`" in refusal(b"[]")


def test_a_path_that_json_cannot_hold_is_refused_before_it_is_written() -> None:
    with pytest.raises(UserError, match="is not UTF-8: rename it"):
        sealed(replace(PAIR, path=Path("a/\udcff")))
