import hashlib
import os
import stat
from pathlib import Path

import pytest

from cifarfast.files import read_plain, replacing, sha256_file, write_json


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    write_json(tmp_path / "ours.json", {})
    (tmp_path / "plain.json").write_text("{}")
    ours, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours.json", "plain.json"))
    assert ours == plain


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_digest(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.timeout(20)
def test_only_plain_files_of_a_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    (tmp_path / "link").symlink_to(path)
    assert read_plain(path, 4) == read_plain(tmp_path / "link", 4) == b"1234"
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_plain(path, 3)
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "device", tmp_path / "pipe"):
        with pytest.raises(OSError, match="not a plain file"):
            read_plain(other, 4)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for missing in (tmp_path / "nothing", tmp_path / "loop"):
        with pytest.raises(OSError, match=r"No such file|symbolic links"):
            read_plain(missing, 4)
