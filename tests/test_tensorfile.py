import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cifarfast.errors import UserError
from cifarfast.tensorfile import read_tensors, write_tensors

TENSORS = {
    "weight": torch.arange(24.0).reshape(4, 6).t(),
    "half": torch.full((3,), 1.5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.empty(0, 5),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.safetensors"


def read(path: Path, max_bytes: int = 1 << 24) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return read_tensors(path, max_bytes=max_bytes, hint="take another")


def refusal(path: Path, max_bytes: int = 1 << 24) -> str:
    with pytest.raises(UserError) as refused:
        read(path, max_bytes)
    assert str(refused.value).endswith(": take another")
    return str(refused.value)


def test_what_was_written_is_read(path: Path) -> None:
    write_tensors(path, TENSORS, {"state": '{"epoch": 3}'})
    tensors, facts = read(path)
    assert facts == {"state": '{"epoch": 3}'}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_a_file_that_is_larger_than_it_can_rightly_be_is_not_read(path: Path) -> None:
    write_tensors(path, TENSORS)
    assert len(read(path, path.stat().st_size)) == 2
    assert "more than" in refusal(path, path.stat().st_size - 1)


def test_what_is_not_there_or_of_others_is_refused(path: Path) -> None:
    assert "No such file" in refusal(path)
    save_file(TENSORS | {"weight": torch.ones(2)}, path)
    assert "its SHA-256 is not that of its contents" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "not a plain file" in refusal(path)


@pytest.mark.parametrize("length", [0, 1, 5, 1 << 20, 100_000_001, 1 << 63, (1 << 64) - 1])
def test_hostile_header_lengths_are_refused(length: int, path: Path) -> None:
    path.write_bytes(length.to_bytes(8, "little") + b'{"__metadata__": {}}')
    assert "is damaged" in refusal(path)


def entry(dtype: str = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TWICE = json.dumps({"a": entry()})[:-1].encode() + b", " + json.dumps({"a": entry("I8")})[1:].encode()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({}, 0),
        ([], 0),
        (b"[" * 100_000, 0),
        (b'{"a":' * 100_000, 0),
        (b"\xff\xfe", 0),
        ({"__metadata__": None}, 0),
        ({"__metadata__": {"sha256": 1}}, 0),
        ({"__metadata__": {"sha256": "0" * 64}, "a": entry()}, 4),
        ({"a": entry(), "b": entry(offsets=(2, 6))}, 6),  # overlapping
        ({"a": entry(), "b": entry(offsets=(8, 12))}, 12),  # a gap
        ({"a": entry(offsets=(4, 8))}, 4),  # outside
        ({"a": entry(offsets=(4, 0))}, 4),
        ({"a": entry(offsets=(0, 1 << 63))}, 4),
        ({"a": entry()}, 5),  # bytes of no tensor
        ({"a": entry(shape=(1 << 63, 4))}, 4),  # a product that overflows
        ({"a": entry(shape=(1 << 32, 1 << 32))}, 4),
        ({"a": entry(shape=(1 << 64, 0), offsets=(0, 0))}, 0),
        ({"a": entry(shape=(0, 1 << 63, 1 << 63), offsets=(0, 0))}, 0),
        ({"a": entry(shape=(0, (1 << 63) - 1, 4), offsets=(0, 0))}, 0),
        ({"a": entry(shape=(-4,))}, 4),
        ({"a": entry(shape=[1] * 100_000, offsets=(0, 1))}, 1),
        ({"a": entry("F4", (8,))}, 4),
        ({"a": entry("F8_E8M0")}, 4),
        ({"a": entry("O")}, 4),
        (TWICE, 4),
        ({"\x1b[2J": entry(offsets=(0, 3))}, 4),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused(header: Any, size: int, path: Path) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize("what", ["value", "name", "shape", "dtype", "fact", "missing"])
def test_what_was_changed_with_care_is_noticed(what: str, path: Path) -> None:
    write_tensors(path, {"a": torch.zeros(4), "b": torch.ones(4)}, {"state": "one"})
    raw = path.read_bytes()
    changed = {
        "value": raw[:-1] + b"\0",
        "name": raw.replace(b'"a"', b'"c"'),
        "shape": raw.replace(b"[4]", b"[2,2]", 1),
        "dtype": raw.replace(b'"F32"', b'"I32"', 1),
        "fact": raw.replace(b'"one"', b'"two"'),
        "missing": raw[:-16].replace(b',"b":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}', b""),
    }[what]
    assert changed != raw
    end = changed.rindex(b"}") + 1
    path.write_bytes((end - 8).to_bytes(8, "little") + changed[8:end] + changed[end:].lstrip(b" "))
    assert "its SHA-256 is not that of its contents" in refusal(path)
