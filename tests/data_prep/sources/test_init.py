"""Deciding what a source is."""

from pathlib import Path

import pytest

from cifarfast.errors import UserError
from data_prep.sources import open_source
from data_prep.sources.batches import BatchArchive, BatchFolder
from data_prep.sources.download import SHA256, Download
from data_prep.sources.synthetic import Synthetic
from data_prep.sources.tree import Tree
from tests.data_prep.conftest import Records, binary_files, python_files, write_images, write_tree


def test_each_kind_is_recognised(tmp_path: Path, records: Records, binary_archive: Path) -> None:
    binary = write_tree(tmp_path / "b", binary_files(records))
    python = write_tree(tmp_path / "p", python_files(records))
    found = {
        spec: type(open_source(spec, cache=tmp_path, any_count=False))
        for spec in (
            "download",
            "synthetic",
            "synthetic:20,10",
            str(binary_archive),
            str(binary),
            str(python / "cifar-10-batches-py"),
            str(write_images(tmp_path / "tree")),
        )
    }
    assert list(found.values()) == [Download, Synthetic, Synthetic, BatchArchive, BatchFolder, BatchFolder, Tree]


def test_a_download_is_known_by_the_official_digest_before_it_is_there(tmp_path: Path) -> None:
    assert open_source("download", cache=tmp_path, any_count=False).digest() == SHA256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.tar.gz", "does not exist"),
        (".", "holds neither CIFAR-10 batches"),
        ("synthetic:5,5", "two sizes from 10"),
        ("synthetic:100", "two sizes"),
        ("synthetic:-10,10", "two sizes"),
        ("synthetic:10,99999999", "two sizes"),
    ],
)
def test_what_is_no_source_is_refused(spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_source(spec, cache=tmp_path, any_count=False)
