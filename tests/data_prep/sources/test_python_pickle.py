"""The unpickler: reads a batch, runs nothing."""

import os
import pickle
import pickletools
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


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, "touch mark"),
        (os.mkdir, "mark"),
        (exec, "open('mark', 'w')"),
        (eval, "open('mark', 'w')"),
        (np.savetxt, "mark"),
        (Path.touch, Path("mark")),
        (getattr, "mark"),
        (np.frombuffer, b"mark"),
    ],
)
def test_a_pickle_that_would_call_something_is_refused(
    function: Callable[..., Any], argument: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batch = {b"labels": call(function, argument), b"data": b"data"}
    assert "asks for" in refused(pickle.dumps(batch, protocol=protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "operation",
    [
        *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER"),
        *("READONLY_BUFFER", "BYTEARRAY8", "BINBYTES8", "BINUNICODE8", "LONG4", "FLOAT", "BINFLOAT"),
        *("EMPTY_SET", "ADDITEMS", "FROZENSET", "DUP", "POP", "POP_MARK"),
    ],
)
def test_operations_that_no_batch_is_made_of_are_refused(operation: str) -> None:
    (code,) = (opcode for opcode in pickletools.opcodes if opcode.name == operation)
    lines = {"FLOAT": 1, "INST": 2, "PERSID": 1}.get(operation, 0)
    argument = b"0\n" * lines or bytes(max(8, code.arg.n) if code.arg else 0)
    assert f"operation {operation}, which" in refused(b"\x80\x02}(}}" + code.code.encode("latin1") + argument + b".")


def test_what_a_batch_may_name_is_not_changed_by_it() -> None:
    for name in (b"_codecs\nencode", b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct"):
        message = refused(b"\x80\x02}U\x04datac" + name + b"\n(N}U\x0c__defaults__)stbs.")
        assert "_Name in the place of _Array" in message


def laughs(depth: int) -> bytes:
    """A tuple of two of the same tuple of two of the same tuple ..."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(depth))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}" + laughs(60) + b"K\x01s.", "tuple in the place of text"),
        (b"}U\x04data" + laughs(60) + b"sU\x06labels" + laughs(60) + b"s.", "rows"),
        (b"}U\x04datacnumpy\ndtype\n" + laughs(60) + b"\x85Rs.", "tuple in the place of text"),
        (b"}U\x04datac_codecs\nencode\nU\x01x" + laughs(60) + b"\x86Rs.", "tuple in the place of text"),
        (b"}" + b"]" * 2_000_000 + b".", "more than 1000000 operations"),
        (b"}" + b"(" * 500_000 + b"t" * 500_000 + b".", "operations"),
        (
            b"}X\x06\x00\x00\x00latin1q\x00X\x00\x00\x10\x00" + bytes(1 << 20) + b"q\x01"
            + b"c_codecs\nencode\nh\x01h\x00\x86R" * 100_000 + b".",
            "the same text is encoded again and again",
        ),
    ],
    ids=["key", "values", "dtype", "encoding", "lists", "nested tuples", "encoded texts"],
)  # fmt: skip
def test_bombs_are_refused_before_they_go_off(content: bytes, message: str) -> None:
    assert message in refused(b"\x80\x02" + content)


@pytest.mark.timeout(20)
def test_bombs_in_the_places_of_names_and_labels() -> None:
    with pytest.raises(UserError, match="tuple in the place of text"):
        class_names(b"\x80\x02}U\x0blabel_names]" + laughs(60) + b"as.", "meta")
    labels = b"](K\x00K\x01K\x02" + laughs(60) + b"e"
    tail = pickle.dumps({b"data": np.ascontiguousarray(ROWS[:, 1:])}, protocol=2)[2:-1]
    assert "a label of type tuple in record 3" in refused(b"\x80\x02" + tail + b"U\x06labels" + labels + b"s.")


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
        ({b"labels": [1, 2, None, 4]}, "a label of type NoneType in record 2"),
        ({b"labels": [1, 2, True, 4]}, "a label of type bool in record 2"),
        ({b"labels": [1, 2, 10**600, 4]}, "label 1000"),
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
