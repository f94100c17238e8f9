"""Reading a `.tar.gz` member by member: nothing is extracted, and only what is asked for is kept."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cifarfast.errors import UserError

MAX_MEMBER_BYTES = 1 << 26
"""Twice an official batch, which has 31 MB."""
MAX_ARCHIVE_BYTES = 1 << 28
"""Unpacked; the official archive has 185 MB."""
MAX_MEMBERS = 1000
"""The official archive has 9."""
MAX_HEADER_BYTES = 1 << 14
"""Of a header's extension, such as a long name."""
_CHUNK_BYTES = 1 << 20


def read_members(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each member that is wanted, in the archive's order; other plain files are skipped.

    Raises:
        UserError: the archive is damaged or truncated, or has a member that no honest archive has: an absolute
            path, `..`, a link or a device, holes, a second member of the same name, an absurd size or number.
    """
    seen: set[str] = set()
    try:
        with gzip.open(path) as unpacked:
            limited = _Limited(unpacked, path)
            # As a stream: one pass, and the bounds hold for the tar headers too.
            with tarfile.open(  # type: ignore[call-overload]
                fileobj=limited, mode="r|", bufsize=_CHUNK_BYTES, tarinfo=_Member
            ) as tar:
                for number, member in enumerate(tar):
                    if number == MAX_MEMBERS:
                        raise UserError(f"{path} has more than {MAX_MEMBERS} members: it is not CIFAR-10")
                    name = _checked_name(member, path)
                    limited.expect(member.size)
                    if member.isdir():
                        continue
                    if name in seen:
                        raise UserError(f"{path} has two members {name}: do not trust it, get the data again")
                    seen.add(name)
                    if name in wanted and (file := tar.extractfile(member)) is not None:
                        yield name, file.read()
            # To the very end, where gzip keeps the checksum of it all.
            limited.expect(MAX_ARCHIVE_BYTES)
            while limited.read(_CHUNK_BYTES):
                pass
    except gzip.BadGzipFile as error:
        raise UserError(f"{path} is not a sound .tar.gz archive ({error}): get it again") from None
    # The last two, because tarfile takes numbers in headers on trust, and follows chains of headers by recursion.
    except (EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): get it again") from None


def _checked_name(member: tarfile.TarInfo, path: Path) -> str:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        problem = "would lie outside the archive's folder"
    elif not (member.isreg() or member.isdir()) or member.issparse():
        problem = "is not a plain file"
    elif member.size > MAX_MEMBER_BYTES:
        problem = f"has {member.size} bytes, more than any batch"
    else:
        return str(name)
    raise UserError(f"{path}: member {member.name[:200]!r} {problem}: do not trust this archive, get the data again")


class _Member(tarfile.TarInfo):
    """A header that is refused before what it announces is read and parsed."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        extension = not (member.isreg() or member.isdir())
        if member.size < 0 or (extension and member.size > MAX_HEADER_BYTES):
            raise tarfile.TarError(f"a header announces {member.size} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.TarError("a member has holes")
        return member


class _Limited:
    """A file that refuses to be read beyond `MAX_ARCHIVE_BYTES`, and far beyond the member that is expected."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, path: Path) -> None:
        self._file, self._path, self._left = file, path, MAX_ARCHIVE_BYTES
        self.expect(0)

    def expect(self, size: int) -> None:
        """From here until the next call nothing but `size` bytes, headers and a chunk read ahead are to be read."""
        self._expected = size + 4 * _CHUNK_BYTES

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        self._expected -= len(content)
        if self._left < 0:
            raise UserError(f"{self._path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes: it is not CIFAR-10")
        if self._expected < 0:
            raise UserError(f"{self._path} has a member with endless headers: do not trust it, get the data again")
        return content
