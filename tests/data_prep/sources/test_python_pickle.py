"""The unpickler: reads a batch, runs nothing."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarfast.errors import UserError
from data_prep.sources.python_pickle import class_names, decode
from tests.data_prep.conftest import pickled_batch

ROWS = np.random.default_rng(5).integers(0, 10, (4, 3073), dtype=np.uint8)
GOOD = pickled_batch(ROWS)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """An object whose pickle calls `function` when it is loaded."""
    return type("Call", (), {"__reduce__": lambda self: (function, arguments)})()


def refused(content: bytes) -> str:
    with pytest.raises(UserError) as error:
        decode(content, "batch")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_batch_becomes_records() -> None:
    assert np.array_equal(decode(GOOD, "batch"), ROWS)


def test_text_keys_and_a_python_2_array_are_read() -> None:
    # As Python 2 wrote it: byte strings by opcode U and T, the old name of the module, keys in the wild order.
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x04M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(ROWS[:, 1:].tobytes()) + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in ROWS[:, 0]) + b"e"
    content = b"\x80\x02}(U\x04data" + array + b"X\x06\x00\x00\x00labels" + labels + b"u."
    assert np.array_equal(decode(content, "batch"), ROWS)


@pytest.mark.parametrize("function", [os.system, eval, exec, open, getattr, __import__, print, np.load, np.frombuffer])
def test_a_pickle_that_would_call_something_is_refused(function: Callable[..., Any], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = {b"labels": call(function, f"touch {mark}"), b"data": ROWS[:, 1:]}
    assert "asks for" in refused(pickle.dumps(batch, protocol=2))
    assert not mark.exists()


@pytest.mark.parametrize("encoding", ["zip", "unicode_escape", "no such"])
def test_the_codec_that_is_admitted_admits_latin1_alone(encoding: str) -> None:
    import codecs

    batch = {b"labels": call(codecs.encode, "text", encoding), b"data": ROWS[:, 1:]}
    assert "in encoding" in refused(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        b".",
        b"\x80\x02N.",
        b"\x80\x02].",
        b"\x80\xff.",
        b"\x80\x02}\x94r\xff\xff\xff\x7f.",  # a memo of 2**31 entries
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x02K\x01Q.",  # a persistent id
        b"cnumpy.core.multiarray\n_reconstruct\n)R}b.",
    ],
)
def test_hostile_or_senseless_bytes_are_refused(content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"labels": [1, 2]}, "as many labels as images"),
        ({b"labels": "1234"}, "as many labels as images"),
        ({b"labels": [1, 2, 3, 256]}, "label 256 in record 3"),
        ({b"labels": [1, -1, 3, 4]}, "label -1 in record 1"),
        ({b"labels": [1, 2, 3.0, 4]}, "label 3.0 in record 2"),
        ({b"labels": [1, 2, True, 4]}, "label True in record 2"),
        ({b"data": ROWS[:, 1:].astype(np.uint16)}, "u2"),
        ({b"data": np.asfortranarray(ROWS[:, 1:])}, "not uint8"),
        ({b"data": ROWS}, "not uint8"),
        ({b"data": ROWS[:, 1:].reshape(4, 3, 32, 32)}, "not uint8"),
        ({b"data": [1, 2, 3]}, "rows"),
    ],
)
def test_wrong_contents_are_refused(change: dict[bytes, Any], message: str) -> None:
    batch = {b"labels": [0, 1, 2, 3], b"data": np.ascontiguousarray(ROWS[:, 1:])} | change
    assert message in refused(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize("missing", [b"labels", b"data"])
def test_missing_keys_are_refused(missing: bytes) -> None:
    batch = {b"labels": [0, 1, 2, 3], b"data": np.ascontiguousarray(ROWS[:, 1:])}
    del batch[missing]
    assert missing.decode() in refused(pickle.dumps(batch, protocol=2))


def test_class_names() -> None:
    assert class_names(pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=2), "meta") == ["a", "b"]
    with pytest.raises(UserError, match="label_names"):
        class_names(pickle.dumps({}), "meta")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_a_user_error_or_another_batch(data: st.DataObject) -> None:
    # The head and the tail, where the opcodes are; the pixels between are any bytes anyway.
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, 300), st.integers(len(content) - 300, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    try:
        records = decode(bytes(content), "batch")
    except UserError:
        return
    assert records.dtype == np.uint8
    assert records.shape[1] == 3073


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_user_error(content: bytes) -> None:
    with pytest.raises(UserError):
        decode(b"\x80\x02" + content, "batch")
