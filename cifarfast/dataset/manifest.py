"""`manifest.json`: what a converted folder holds, and the digests that prove it.

FFCV serves damaged pixels without a word, so nothing is trained on before the files have been held
against this manifest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cifarfast.errors import UserError
from cifarfast.files import read_plain, sha256_file, write_json
from cifarfast.records import decode_versioned, sealed

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "test")
_MAX_BYTES = 1 << 20
CONVERT_HINT = "run python -m data_prep.to_ffcv"

Kind = Literal["cifar10", "custom", "synthetic"]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Counts = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=10, max_length=10)]
CLASS_NAME = r"\A[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]{1,100}\Z"
"""No control characters, nothing that changes the direction of what follows, nothing that is not UTF-8."""
ClassName = Annotated[str, msgspec.Meta(pattern=CLASS_NAME)]
ClassNames = Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=10, max_length=10)]
UnitInterval = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One `.beton` file."""

    file: str
    """File name inside the folder."""
    images: Positive
    """Number of images."""
    images_per_class: Counts
    """Number of images of each class, in the order of the class names."""
    bytes: Positive
    """Size of the file."""
    sha256: Sha256
    """SHA-256 of the file, lower-case hex."""

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file or self.file in ("", ".", ".."):
            raise ValueError(f"file {self.file!r} is not a plain file name")
        if sum(self.images_per_class) != self.images:
            raise ValueError(f"images_per_class adds up to {sum(self.images_per_class)}, not {self.images}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known about a converted folder."""

    schema: Positive = SCHEMA
    """Version of this layout; a newer one is refused."""
    kind: Kind
    """`cifar10`, `custom` (an image tree of other classes) or `synthetic` (the stand-in)."""
    source: str
    """What was converted, as the user named it."""
    source_digest: str
    """Digest of the source; decides whether a conversion is up to date."""
    official: bool
    """Whether all six batches are byte for byte those of the official CIFAR-10."""
    class_names: ClassNames
    """Names of the labels 0 to 9."""
    mean: tuple[UnitInterval, UnitInterval, UnitInterval]
    """Mean of each channel of the training split, on the scale 0 to 1."""
    std: tuple[UnitInterval, UnitInterval, UnitInterval]
    """Population standard deviation of each channel of the training split, on the scale 0 to 1."""
    train: Split
    """The training split."""
    test: Split
    """The test split."""
    writer: str
    """What wrote the `.beton` files: `ffcv` or `cifarfast`."""
    versions: dict[str, str]
    """Versions of Python, numpy, ffcv and this package at the time of writing."""

    def split(self, name: str) -> Split:
        """The split called `train` or `test`."""
        return {"train": self.train, "test": self.test}[name]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Atomically write `manifest.json` into `folder`."""
    write_json(folder / MANIFEST_NAME, sealed(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `manifest.json`.

    Raises:
        UserError: there is none, it is not JSON, of a newer schema, or a field is missing or wrong.
    """
    path = folder / MANIFEST_NAME
    try:
        raw = read_plain(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no {MANIFEST_NAME}: {CONVERT_HINT} --out {folder}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {CONVERT_HINT} --out {folder} --force") from None
    return decode_versioned(raw, Manifest, schema=SCHEMA, where=path, hint=f"{CONVERT_HINT} --out {folder} --force")


def check_folder(folder: Path, *, full: bool) -> Manifest:
    """Hold the files of a converted folder against its manifest.

    Args:
        folder: where `manifest.json` and the two `.beton` files are.
        full: compare SHA-256 digests; otherwise only that the files exist with the right size.

    Raises:
        UserError: the manifest is unusable, or a file is missing, of another size, or damaged.
    """
    manifest = read_manifest(folder)
    for name in SPLITS:
        split = manifest.split(name)
        path = folder / split.file
        if not path.is_file():
            raise UserError(f"{path} is missing: {CONVERT_HINT} --out {folder} --force")
        size = path.stat().st_size
        if size != split.bytes:
            raise UserError(
                f"{path} has {size} bytes where its manifest says {split.bytes}: {CONVERT_HINT} --out {folder} --force"
            )
        if full and sha256_file(path) != split.sha256:
            raise UserError(
                f"{path} is damaged (its SHA-256 is not the manifest's): {CONVERT_HINT} --out {folder} --force"
            )
    return manifest


@contextmanager
def unchanged(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Open the files of a folder inside; refuses them if another conversion came between them and their manifest.

    A conversion takes the manifest away before it replaces the first file and writes one after the last, so
    that whoever finds the same one before and after has read the files that go with it. The same file, that
    is: two conversions, there and back, leave another one with the same content.

    Raises:
        UserError: the manifest is gone, or another one.
    """
    before = _identity(folder)
    yield
    try:
        # In this order: what was read is then the file that has been there all the time.
        same = read_manifest(folder) == manifest and _identity(folder) == before
    except UserError:
        same = False
    if not same:
        raise UserError(f"{folder} was converted again while it was being read: start again when that is done")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which file the manifest is; None where there is none, or it cannot be looked at."""
    try:
        found = (folder / MANIFEST_NAME).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
