"""The six batches, in both formats, in archives and folders: read right, and refused when bad."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cifarfast.errors import UserError
from data_prep.sources import Dataset, open_source
from data_prep.sources import records as records_module
from data_prep.sources.records import BATCHES
from tests.data_prep.conftest import (
    Records,
    binary_files,
    expected,
    python_files,
    write_archive,
    write_tree,
)

Files = dict[str, bytes]
BIN = "cifar-10-batches-bin/"


def load(path: Path, *, any_count: bool = True) -> Dataset:
    return open_source(str(path), cache=path, any_count=any_count).load()


@pytest.mark.parametrize("write", [write_tree, write_archive])
@pytest.mark.parametrize("files", [binary_files, python_files])
def test_images_and_labels_are_those_of_the_format(
    write: Callable[[Path, Files], Path], files: Callable[[Records], Files], tmp_path: Path, records: Records
) -> None:
    dataset = load(write(tmp_path / "source", files(records)))
    for split, batches in ((dataset.train, BATCHES[:5]), (dataset.test, BATCHES[5:])):
        images, labels = expected(records, batches)
        assert np.array_equal(split.images, images)
        assert split.labels.tolist() == labels
        assert split.images.flags.c_contiguous
        assert split.labels.dtype == np.int64
    assert (dataset.kind, dataset.official) == ("cifar10", False)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_pickle_protocol_of_old(protocol: int, tmp_path: Path, records: Records) -> None:
    dataset = load(write_tree(tmp_path / "source", python_files(records, protocol)))
    assert np.array_equal(dataset.test.images, expected(records, BATCHES[5:])[0])


@pytest.mark.parametrize("files", [binary_files, python_files])
def test_official_batches_are_recognised_in_both_formats(
    files: Callable[[Records], Files], tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    digests = {batch: hashlib.sha256(rows.tobytes()).hexdigest() for batch, rows in records.items()}
    monkeypatch.setattr(records_module, "OFFICIAL_SHA256", digests)
    source = write_tree(tmp_path / "source", files(records))
    assert load(source).official
    monkeypatch.setattr(records_module, "OFFICIAL_SHA256", digests | {"data_batch_3": "0" * 64})
    assert not load(source).official


def test_counts_are_accepted_only_when_asked(binary_archive: Path) -> None:
    with pytest.raises(UserError, match=r"data_batch_1.bin holds 20 images, not 10000.*--any-count"):
        load(binary_archive, any_count=False)


def spoil(files: Files, name: str, content: bytes | None) -> Files:
    return {key: value for key, value in (files | {name: content}).items() if value is not None}


def with_label(rows: np.ndarray, record: int, label: int) -> bytes:
    rows = rows.copy()
    rows[record, 0] = label
    return rows.tobytes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data_batch_4.bin", None, r"data_batch_4.bin is missing"),
        ("test_batch.bin", None, r"test_batch.bin is missing"),
        ("data_batch_2.bin", bytes(3073 * 3 - 1), r"data_batch_2.bin has 9218 bytes, not a whole number"),
        ("data_batch_2.bin", b"", r"data_batch_2.bin holds no images"),
        (
            "data_batch_5.bin",
            with_label(np.zeros((20, 3073), np.uint8), 7, 10),
            r"data_batch_5.bin has label 10 in record 7 ",
        ),
        ("batches.meta.txt", b"apple\nbeaver\n", r"batches.meta.txt names the classes apple, beaver"),
        ("test_batch.bin", bytes(3073 * 21839), r"test_batch.bin'? has 67111247 bytes, more than any batch"),
    ],
)
@pytest.mark.parametrize("write", [write_tree, write_archive])
def test_bad_batches_are_named(
    write: Callable[[Path, Files], Path],
    file: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    records: Records,
) -> None:
    source = write(tmp_path / "source", spoil(binary_files(records), BIN + file, content))
    with pytest.raises(UserError, match=message) as refused:
        load(source)
    assert "\n" not in str(refused.value)


def test_archive_digest_is_its_sha256_and_folder_digest_follows_content(
    tmp_path: Path, records: Records, binary_archive: Path
) -> None:
    import hashlib

    def digest(path: Path) -> str:
        return open_source(str(path), cache=path, any_count=True).digest()

    assert digest(binary_archive) == hashlib.sha256(binary_archive.read_bytes()).hexdigest()
    folders = [write_tree(tmp_path / name, binary_files(records)) for name in "ab"]
    assert digest(folders[0]) == digest(folders[1])
    (folders[1] / BIN / "test_batch.bin").write_bytes(bytes(3073))
    assert digest(folders[0]) != digest(folders[1])


def test_archives_without_batches_or_with_both_formats_are_refused(tmp_path: Path, records: Records) -> None:
    with pytest.raises(UserError, match="holds no CIFAR-10 batch"):
        load(write_archive(tmp_path / "a.tar.gz", {"readme.txt": b"hello"}))
    with pytest.raises(UserError, match="mixes the binary and the python version"):
        load(write_archive(tmp_path / "b.tar.gz", binary_files(records) | python_files(records)))
