"""Archives that no honest person packed, and honest ones that broke on the way."""

import gzip
import resource
import tarfile
from pathlib import Path

import pytest

from cifarfast.errors import UserError
from data_prep.sources import archive
from data_prep.sources.archive import read_members
from tests.data_prep.conftest import write_archive


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def read(path: Path, *wanted: str) -> dict[str, bytes]:
    return dict(read_members(path, frozenset(wanted)))


def test_only_what_is_wanted_is_yielded(tmp_path: Path) -> None:
    files = {"a/one": b"1", "a/two": b"22", "./a/three": b"333"}
    path = write_archive(tmp_path / "x.tar.gz", files, [member("a", tarfile.DIRTYPE)])
    assert read(path, "a/two", "a/three", "a/four") == {"a/two": b"22", "a/three": b"333"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("/etc/passwd"), "outside"),
        (member("a/../../passwd"), "outside"),
        (member("a/link", tarfile.SYMTYPE, link="/etc/passwd"), "not a plain file"),
        (member("a/link", tarfile.LNKTYPE, link="a/one"), "not a plain file"),
        (member("a/null", tarfile.CHRTYPE), "not a plain file"),
        (member("a/pipe", tarfile.FIFOTYPE), "not a plain file"),
        (member("a/one"), "two members"),
        (member("./a/one"), "two members"),
        (member("a/huge", size=archive.MAX_MEMBER_BYTES + 1), "more than any batch"),
    ],
)
def test_dangerous_members_are_refused(bad: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.tar.gz", {"a/one": b"1"}, [bad])
    with pytest.raises(UserError, match=message) as refused:
        read(path, "a/one", "a/link")
    assert "\n" not in str(refused.value)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    path = write_archive(tmp_path / "x.tar.gz", {f"a/{i}": bytes(1 << 18) for i in range(5)})
    with pytest.raises(UserError, match="unpacks to more than"):
        read(path)


def raw_header(kind: bytes, size: int, name: str = "a/one", *, body: bytes = b"") -> bytes:
    """A header as `tarfile` would not write it, and what follows it, in whole blocks."""
    header = bytearray(member(name, kind).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * ord(" ") + sum(header[156:512]))
    return bytes(header) + body + bytes(-len(body) % 512)


def pax(**fields: str) -> bytes:
    """An extended header with these fields; `_` stands for a point."""
    lines = [f" {key.replace('_', '.')}={value}\n".encode() for key, value in fields.items()]
    body = b"".join(f"{len(line) + len(str(len(line) + 2))}".encode() + line for line in lines)
    return raw_header(tarfile.XHDTYPE, len(body), "pax", body=body)


ONE = raw_header(tarfile.REGTYPE, 1, body=b"1")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw_header(tarfile.XHDTYPE, 2 << 20, body=b"9" * (2 << 20)), "announces 2097152 bytes"),
        (raw_header(tarfile.XGLTYPE, 8**11 - 1), "announces 8589934591 bytes"),
        (raw_header(tarfile.GNUTYPE_LONGNAME, 2 << 20, body=b"x" * (2 << 20)), "announces 2097152 bytes"),
        (raw_header(tarfile.GNUTYPE_LONGLINK, 2 << 20), "announces 2097152 bytes"),
        (raw_header(tarfile.REGTYPE, -1), "announces -1 bytes"),
        (raw_header(tarfile.REGTYPE, -512), "announces -512 bytes"),
        (raw_header(tarfile.GNUTYPE_SPARSE, 0), "holes"),
        (pax(GNU_sparse_map="0,1,99999999,1", GNU_sparse_size="99999999") + ONE, "not a plain file"),
        (
            pax(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="9")
            + raw_header(tarfile.REGTYPE, 1 << 23, body=b"9999999\n" + b"0\n" * (1 << 22)),
            "endless headers",
        ),
        (pax(path="/etc/passwd") + ONE, "outside"),
        (pax(path="../../passwd") + ONE, "outside"),
        (pax(size=str(1 << 30)) + ONE, "more than any batch"),
        (pax(size="-512") + ONE, "damaged|outside|plain|announces"),
        (pax(path="a/two") + ONE + pax(path="a/two") + ONE, "two members"),
        (pax(hdrcharset="BINARY", path="a/\x1b[2J/..") + ONE, "outside"),
        (b"".join(raw_header(tarfile.DIRTYPE, 0, "a") for _ in range(1001)), "more than 1000 members"),
        (pax(GNU_sparse_map="x") + ONE, "damaged"),
        (pax(GNU_sparse_realsize="x") + ONE, "damaged"),
        (pax(GNU_sparse_size="x") + ONE, "damaged"),
        (
            pax(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="9")
            + raw_header(tarfile.REGTYPE, 512, body=b"9" * 512),
            "damaged",
        ),
        (pax(comment="x") * 1000 + ONE, "damaged"),
    ],
)
def test_headers_that_no_honest_archive_has_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1024), 1))
    with pytest.raises(UserError, match=message) as refused:
        read(path, "a/one")
    assert str(refused.value).isprintable()


def test_honest_extended_headers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(pax(mtime="1234567890.5", comment="é") + ONE + bytes(1024), 1))
    assert read(path, "a/one") == {"a/one": b"1"}


@pytest.mark.timeout(60)
def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(ONE)
        for _ in range(40):
            file.write(bytes(1 << 24))
    assert path.stat().st_size < 4 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="unpacks to more than"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = write_archive(tmp_path / "x.tar.gz", {"a/one": b"1", "mark": b"2"}, [member("b", tarfile.DIRTYPE)])
    assert read(path, "a/one", "mark") == {"a/one": b"1", "mark": b"2"}
    assert not list(folder.iterdir())


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    content = bytes(range(256)) * 4000
    return write_archive(tmp_path / "x.tar.gz", {"a/one": content}).read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 2, 10, 0.3, 0.9, -1, -8])
def test_truncated_anywhere(keep: float, packed: bytes, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed[: int(keep * len(packed)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(UserError, match="get it again"):
        read(cut, "a/one")


def test_a_flipped_byte_anywhere_is_noticed(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flipped.tar.gz"
    for place in [0, 2, *range(20, len(packed), len(packed) // 40), len(packed) - 6]:
        damaged = bytearray(packed)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        with pytest.raises(UserError):
            read(path, "a/one")


def test_what_is_not_gzip_or_not_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=r"not a sound \.tar\.gz"):
        read(path)
    path.write_bytes(gzip.compress(b"<html>not found</html>" * 100))
    with pytest.raises(UserError, match="truncated or damaged"):
        read(path)
