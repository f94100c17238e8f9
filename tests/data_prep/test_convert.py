"""The folder is good before, after, and when anything fails in between."""

import hashlib
import shutil
from pathlib import Path

import filelock
import numpy as np
import pytest

from cifarfast.dataset.beton import Beton, read_beton
from cifarfast.dataset.manifest import check_folder, read_manifest
from cifarfast.errors import UserError
from data_prep import convert as module
from data_prep.convert import LOCK_NAME, channel_statistics, convert
from data_prep.sources import open_source
from data_prep.sources.base import CIFAR10_CLASSES, Source
from data_prep.sources.records import BATCHES
from data_prep.sources.synthetic import Synthetic
from tests.data_prep.conftest import PER_BATCH, Records, expected

pytestmark = pytest.mark.usefixtures("without_ffcv")
FILES = {LOCK_NAME, "manifest.json", "test.beton", "train.beton"}


@pytest.fixture
def source(binary_archive: Path) -> Source:
    return open_source(str(binary_archive), cache=binary_archive.parent, any_count=True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_manifest_tells_the_truth(source: Source, out: Path, records: Records, binary_archive: Path) -> None:
    manifest, converted = convert(source, out)
    assert converted
    assert manifest == read_manifest(out) == check_folder(out, full=True)
    assert set(content(out)) == FILES
    images, labels = expected(records, BATCHES[:5])
    written = read_beton(out / "train.beton")
    assert np.array_equal(written.images, images)
    assert written.labels.tolist() == labels
    assert manifest.mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), abs=1e-12)
    assert manifest.std == pytest.approx((images / 255).std(axis=(0, 1, 2)), abs=1e-12)
    assert (manifest.train.images, manifest.test.images) == (5 * PER_BATCH, PER_BATCH)
    assert manifest.train.images_per_class == (10,) * 10
    assert (manifest.kind, manifest.official, manifest.writer) == ("cifar10", False, "cifarfast")
    assert manifest.class_names == CIFAR10_CLASSES
    assert manifest.source == str(binary_archive)
    assert manifest.source_digest == hashlib.sha256(binary_archive.read_bytes()).hexdigest()
    assert set(manifest.versions) == {"python", "numpy", "cifarfast"}


def test_a_second_run_is_up_to_date_and_force_rewrites(source: Source, out: Path) -> None:
    manifest, _ = convert(source, out)
    inode = (out / "train.beton").stat().st_ino
    assert convert(source, out) == (manifest, False)
    assert (out / "train.beton").stat().st_ino == inode
    assert convert(source, out, force=True) == (manifest, True)
    assert (out / "train.beton").stat().st_ino != inode


def test_another_source_or_a_damaged_folder_is_converted_anew(source: Source, out: Path) -> None:
    convert(source, out)
    manifest, converted = convert(Synthetic.parse("synthetic:20,10"), out)
    assert (converted, manifest.kind) == (True, "synthetic")
    with (out / "test.beton").open("ab") as file:
        file.write(b"x")
    assert convert(Synthetic.parse("synthetic:20,10"), out) == (manifest, True)


def test_whoever_reads_the_old_file_keeps_it(source: Source, out: Path) -> None:
    convert(source, out)
    before = content(out)["train.beton"]
    with (out / "train.beton").open("rb") as reader:
        convert(Synthetic.parse("synthetic:20,10"), out)
        assert reader.read() == before


@pytest.mark.parametrize("step", ["channel_statistics", "_described", "flush"])
def test_a_failure_leaves_the_folder_as_it_was(
    step: str, source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(Synthetic.parse("synthetic:20,10"), out)
    before = content(out)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises(OSError, match="No space left"):
        convert(source, out)
    assert content(out) == before


def test_dying_between_the_renames_and_the_manifest_is_noticed_and_mended(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(Synthetic.parse("synthetic:100,20"), out)  # of the same sizes as the source
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", lambda *_: pytest.fail("died here", pytrace=False))
        with pytest.raises(pytest.fail.Exception):
            convert(source, out)
    with pytest.raises(UserError, match=r"holds no manifest.json"):
        check_folder(out, full=False)
    assert convert(source, out)[1]
    check_folder(out, full=True)


def test_only_our_own_stale_files_are_removed(source: Source, out: Path) -> None:
    out.mkdir(parents=True)
    for name in (".train.beton.abc.tmp", ".manifest.json.x1.tmp", "notes.tmp", ".other.tmp"):
        (out / name).write_text("x")
    convert(source, out)
    assert set(content(out)) == FILES | {"notes.tmp", ".other.tmp"}


def test_a_file_that_does_not_read_back_is_refused(source: Source, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(path: Path) -> Beton:
        return read_beton(path)._replace(labels=np.zeros(1, dtype=np.int64))

    monkeypatch.setattr(module, "read_beton", other)
    with pytest.raises(UserError, match="does not read back"):
        convert(source, out)
    assert set(content(out)) == {LOCK_NAME}


def test_too_little_space_is_told_before_writing(
    source: Source, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="its disk has 1 MiB free"):
        convert(source, out)


def test_two_at_once(source: Source, out: Path) -> None:
    out.mkdir(parents=True)
    with filelock.FileLock(out / LOCK_NAME), pytest.raises(UserError, match="another conversion"):
        convert(source, out)
    convert(source, out)


def test_an_output_that_cannot_be_written(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match="choose another --out"):
            convert(source, out)


def test_statistics_are_exact_and_refuse_a_constant_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (700, 32, 32, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), rel=1e-13)
    assert std == pytest.approx((images / 255).std(axis=(0, 1, 2)), rel=1e-12)
    images[..., 1] = 255
    with pytest.raises(UserError, match="channel 1"):
        channel_statistics(images)
