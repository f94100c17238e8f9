import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifarfast.dataset.manifest import (
    MANIFEST_NAME,
    SCHEMA,
    Manifest,
    Split,
    check_folder,
    read_manifest,
    write_manifest,
)
from cifarfast.errors import UserError
from cifarfast.records import sealed

CONTENT = {"train": b"train pixels", "test": b"test"}


def split(name: str, content: bytes) -> Split:
    return Split(
        file=f"{name}.beton",
        images=12,
        images_per_class=(3, 1, 1, 1, 1, 1, 1, 1, 1, 1),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def write_folder(folder: Path, content: dict[str, bytes]) -> Manifest:
    """Write files with this content, and a manifest that vouches for them and says little true of them beside."""
    manifest = Manifest(
        kind="cifar10",
        source="cifar-10-binary.tar.gz",
        source_digest="c4a3",
        official=True,
        class_names=tuple("abcdefghij"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        train=split("train", content["train"]),
        test=split("test", content["test"]),
        writer="ffcv",
        versions={"python": "3.11"},
    )
    write_manifest(folder, manifest)
    for name in content:
        (folder / f"{name}.beton").write_bytes(content[name])
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, CONTENT)
    return tmp_path


def change(folder: Path, *keys: str | int, value: Any) -> None:
    """Set a field of the manifest, at the end of a path of keys, to a wrong value."""
    path = folder / MANIFEST_NAME
    whole = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(sealed(whole)))


def refusal(folder: Path, *, full: bool = True) -> str:
    with pytest.raises(UserError) as refused:
        check_folder(folder, full=full)
    message = str(refused.value)
    assert str(folder) in message
    assert "run python -m data_prep.to_ffcv" in message
    assert "\n" not in message
    return message


def test_what_was_written_is_read(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, CONTENT)
    assert read_manifest(tmp_path) == manifest
    assert check_folder(tmp_path, full=True) == check_folder(tmp_path, full=False) == manifest
    assert manifest.split("test") is manifest.test


def test_the_file_is_plain_json(folder: Path) -> None:
    content = json.loads((folder / MANIFEST_NAME).read_text())
    assert content["schema"] == SCHEMA == 1
    assert content["train"]["images_per_class"][0] == 3


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert f"holds no manifest.json: run python -m data_prep.to_ffcv --out {folder}" in refusal(folder)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "holds no manifest.json" in refusal(tmp_path / "file")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_manifest_that_is_no_plain_file(make: Callable[[Path], object], folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()
    make(folder / MANIFEST_NAME)
    assert "not a plain file" in refusal(folder)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"\x80", b'{"a":' * 100_000, b'{"schema": NaN}'])
def test_a_manifest_that_is_not_json(raw: bytes, folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes(raw)
    assert "is not JSON" in refusal(folder)


@pytest.mark.parametrize("raw", [b"[]", b"{}", b"null", b'{"schema": "1"}', b'{"schema": 1}'])
def test_json_that_is_no_manifest(raw: bytes, folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes(raw)
    assert "is damaged" in refusal(folder)


def test_a_manifest_of_a_newer_schema(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text('{"schema": 2, "everything": "else"}')
    assert "has schema 2, newer than 1: update cifarfast" in refusal(folder)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Manifest) if f.name != "schema"])
def test_a_missing_field_is_named(name: str, folder: Path) -> None:
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    assert f"`{name}`" in refusal(folder)


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["schema"], 0, "$.schema"),
        (["kind"], "imagenet", "imagenet"),
        (["official"], 1, "$.official"),
        (["class_names"], ["a"] * 9, "$.class_names"),
        (["class_names", 3], "", "$.class_names[3]"),
        (["class_names", 3], "x" * 101, "$.class_names[3]"),
        (["class_names", 3], "cat\n", "$.class_names[3]"),
        (["class_names", 3], "\x1b[2Jcat", "$.class_names[3]"),
        (["class_names", 3], "\u202etac", "$.class_names[3]"),
        (["mean"], [0.5, 0.5], "$.mean"),
        (["mean"], [0.5, 0.5, 1.5], "$.mean"),
        (["std"], [0.2, 0.2, -0.1], "$.std"),
        (["train"], None, "$.train"),
        (["train", "images"], 0, "$.train.images"),
        (["train", "images"], 13, "adds up to 12, not 13"),
        (["train", "images"], "12", "$.train.images"),
        (["train", "images_per_class"], [12], "$.train.images_per_class"),
        (["train", "images_per_class"], [13, -1] + [0] * 8, "$.train.images_per_class"),
        (["test", "bytes"], 0, "$.test.bytes"),
        (["test", "sha256"], "ABC", "$.test.sha256"),
        (["test", "sha256"], "0" * 64 + "\n", "$.test.sha256"),
        (["test", "file"], "../test.beton", "not a plain file name"),
        (["test", "file"], "/etc/passwd", "not a plain file name"),
        (["test", "file"], "sub/test.beton", "not a plain file name"),
        (["test", "file"], "..", "not a plain file name"),
        (["test", "file"], ".", "not a plain file name"),
        (["test", "file"], "", "not a plain file name"),
    ],
)
def test_a_wrong_value_is_told(keys: list[str | int], value: Any, told: str, folder: Path) -> None:
    change(folder, *keys, value=value)
    message = refusal(folder)
    assert "is damaged" in message
    assert told in message


@pytest.mark.parametrize("field", [{"mean": [0.5, 0.5, 0.5]}, {"official": False}, {"crc32": None}])
def test_a_plausible_value_that_nobody_wrote_is_told(field: dict[str, Any], folder: Path) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | field))
    assert "`crc32` is not the checksum" in refusal(folder)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / f"{name}.beton").unlink()
    assert f"{name}.beton is missing" in refusal(folder, full=False)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_file_of_another_size(name: str, folder: Path) -> None:
    (folder / f"{name}.beton").write_bytes(CONTENT[name] + b"!")
    size = len(CONTENT[name])
    assert f"has {size + 1} bytes where its manifest says {size}" in refusal(folder, full=False)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_changed_byte_is_found_by_the_full_check_only(name: str, folder: Path) -> None:
    (folder / f"{name}.beton").write_bytes(b"?" + CONTENT[name][1:])
    check_folder(folder, full=False)
    assert f"{name}.beton is damaged (its SHA-256 is not the manifest's)" in refusal(folder)
