"""From a source to a folder of `.beton` files, so that the folder is good before, after, and if anything fails."""

import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt

from cifarfast.dataset.beton import CLASSES, Beton, read_beton
from cifarfast.dataset.manifest import (
    MANIFEST_NAME,
    SPLITS,
    Manifest,
    Split,
    check_folder,
    write_manifest,
)
from cifarfast.errors import UserError, one_line
from cifarfast.files import flush, remove_temporaries, replacing, sha256_file
from data_prep.sources import Dataset, Source
from data_prep.writers import Write, WriterName, open_writer

LOCK_NAME = ".lock"
_FILES = {split: f"{split}.beton" for split in SPLITS}
_CHUNK = 256
"""Images whose sums are taken at once: small enough for the cache, and for 32 bits."""
_OVERHEAD_BYTES = 1 << 25
"""Page padding and tables of both files, rounded up."""


def convert(source: Source, out: Path, *, force: bool = False, writer: WriterName = "auto") -> tuple[Manifest, bool]:
    """Convert `source` into the folder `out`.

    Both files are written under temporary names, read back and compared, then renamed; the manifest comes
    last. Whoever has the old files open keeps reading them. A second conversion into the same folder at
    the same time fails at once.

    Args:
        source: where the images come from.
        out: the folder, made if needed.
        force: convert even if `out` already holds this very source.
        writer: what writes the files; both write the same bytes.

    Returns:
        The manifest, and whether anything was converted (False: it was up to date).

    Raises:
        UserError: the source is bad, or another conversion holds the folder, or the disk is full.
        OSError: the folder cannot be written to.
    """
    with _locked(out):
        digest = source.digest()
        if not force and (manifest := _up_to_date(out, digest)) is not None:
            return manifest, False
        remove_temporaries(out, *_FILES.values(), MANIFEST_NAME)
        with open_writer(writer) as write:
            return _write_folder(source, digest, out, write), True


def _write_folder(source: Source, digest: str, out: Path, write: Write) -> Manifest:
    dataset = source.load()
    mean, std = channel_statistics(dataset.train.images)
    _check_space(out, dataset)
    with ExitStack() as temporaries:
        train, test = (temporaries.enter_context(replacing(out / _FILES[split])) for split in SPLITS)
        writer = write({train: dataset.train, test: dataset.test})
        manifest = Manifest(
            kind=dataset.kind,
            source=one_line(source.name),
            source_digest=digest,
            official=dataset.official,
            class_names=dataset.class_names,
            mean=mean,
            std=std,
            train=_described(train, dataset.train, _FILES["train"]),
            test=_described(test, dataset.test, _FILES["test"]),
            writer=writer,
            versions=_versions(writer),
        )
        flush(train)
        flush(test)
        # From here to the new manifest the folder counts as not converted, should we be killed.
        (out / MANIFEST_NAME).unlink(missing_ok=True)
    write_manifest(out, manifest)
    return manifest


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and population standard deviation of each channel of uint8 (N, 32, 32, 3), on the scale 0 to 1.

    Exact but for the last rounding: from sums of values and of their squares, in whole numbers.

    Raises:
        UserError: a channel has one value throughout, which no normalisation can cope with.
    """
    rows = images.reshape(len(images), -1)
    sums, squares = np.zeros((2, rows.shape[1]), dtype=np.uint64)
    for start in range(0, len(rows), _CHUNK):
        values = rows[start : start + _CHUNK].astype(np.uint32)
        sums += values.sum(axis=0, dtype=np.uint32)
        squares += (values * values).sum(axis=0, dtype=np.uint32)
    total = images.size // 3
    means, stds = [], []
    for channel in range(3):
        first, second = int(sums[channel::3].sum()), int(squares[channel::3].sum())
        if (variance := total * second - first * first) == 0:
            raise UserError(f"every training pixel has the same value in channel {channel}: these are no photographs")
        means.append(first / total / 255)
        stds.append((variance / total**2) ** 0.5 / 255)
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(out / LOCK_NAME, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"another conversion into {out} is running: wait for it, or choose another --out") from None
    except (OSError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write to the folder {out} ({reason}): choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def _up_to_date(out: Path, digest: str) -> Manifest | None:
    try:
        manifest = check_folder(out, full=False)
    except UserError:
        return None
    return manifest if manifest.source_digest == digest else None


def _check_space(out: Path, dataset: Dataset) -> None:
    needed = dataset.train.images.nbytes + dataset.test.images.nbytes + _OVERHEAD_BYTES
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out} needs {needed >> 20} MiB, but its disk has {free >> 20} MiB free: make room, or take another --out"
        )


def _described(path: Path, data: Beton, file: str) -> Split:
    """Read the file back, compare it to what was to be written, and describe it."""
    written = read_beton(path)
    if not (np.array_equal(written.images, data.images) and np.array_equal(written.labels, data.labels)):
        raise UserError(f"{file} does not read back as it was written: check the disk and its free space, try again")
    return Split(
        file=file,
        images=len(data.labels),
        images_per_class=tuple(int(n) for n in np.bincount(data.labels, minlength=CLASSES)),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )


def _versions(writer: str) -> dict[str, str]:
    packages = ("cifarfast", "numpy", *(("ffcv",) if writer == "ffcv" else ()))
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
