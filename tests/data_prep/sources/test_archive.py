"""Archives that no honest person packed, and honest ones that broke on the way."""

import gzip
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


@pytest.mark.parametrize("name", ["x" * (3 << 19)])
def test_the_bound_holds_for_headers_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    with pytest.raises(UserError, match="unpacks to more than"):
        read(write_archive(tmp_path / "x.tar.gz", {name: b""}))


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
