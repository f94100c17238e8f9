"""The six batch files in an archive or in a folder, in either of the two official versions."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cifarfast.errors import UserError
from cifarfast.files import sha256_file
from data_prep.progress import stage
from data_prep.sources import binary, python_pickle
from data_prep.sources.archive import MAX_MEMBER_BYTES, read_members
from data_prep.sources.base import Dataset
from data_prep.sources.records import BATCHES, Format, assemble

FORMATS = (binary.FORMAT, python_pickle.FORMAT)


def find_format(path: Path) -> tuple[Path, Format] | None:
    """The folder (`path`, or the official folder in it) that holds a batch, and the format of the batch."""
    for layout in FORMATS:
        for folder in (path, path / layout.folder):
            if any((folder / (batch + layout.suffix)).is_file() for batch in BATCHES):
                return folder, layout
    return None


@dataclass(frozen=True)
class BatchArchive:
    """A `.tar.gz` of batches."""

    name: str
    path: Path
    any_count: bool

    def digest(self) -> str:
        """SHA-256 of the archive."""
        return sha256_file(self.path)

    def load(self) -> Dataset:
        """Read the archive in one pass."""
        members = {f"{layout.folder}/{file}": (layout, file) for layout in FORMATS for file in layout.files}
        contents: dict[str, bytes] = {}
        found: Format | None = None
        with stage(f"reading {self.name}", total=len(BATCHES) + 1) as advance:
            for member, content in read_members(self.path, frozenset(members)):
                layout, file = members[member]
                if found not in (None, layout):
                    raise UserError(f"{self.path} mixes the binary and the python version: get the data again")
                found = layout
                contents[file] = content
                advance(1)
        if found is None:
            raise UserError(
                f"{self.path} holds no CIFAR-10 batch (such as {next(iter(members))}): "
                "point --source at the official binary or python archive"
            )
        place = f"{self.path}: {found.folder}/"
        return assemble(contents, found, lambda file: place + file, any_count=self.any_count)


@dataclass(frozen=True)
class BatchFolder:
    """A folder of batches."""

    name: str
    folder: Path
    layout: Format
    any_count: bool

    def digest(self) -> str:
        """SHA-256 over the names and SHA-256 of the files."""
        return hashlib.sha256(
            "\n".join(f"{path.name} {sha256_file(path)}" for path in self._paths()).encode()
        ).hexdigest()

    def load(self) -> Dataset:
        """Read the files one by one."""
        contents = {}
        with stage(f"reading {self.name}", total=len(self.layout.files)) as advance:
            for path in self._paths():
                if (size := path.stat().st_size) > MAX_MEMBER_BYTES:
                    raise UserError(f"{path} has {size} bytes, more than any batch: get the data again")
                contents[path.name] = path.read_bytes()
                advance(1)
        return assemble(contents, self.layout, lambda file: str(self.folder / file), any_count=self.any_count)

    def _paths(self) -> list[Path]:
        return [path for file in self.layout.files if (path := self.folder / file).is_file()]
