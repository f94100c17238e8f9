"""Writing files so that a reader sees the old one or the new one, never half of either."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read once: it can be read only by setting it, which two threads must not do at once.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    On any exception the temporary file is removed and `path` is left as it was.

    Raises:
        OSError: the folder is not writable, the disk is full.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        flush(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            error.filename = str(path)  # what the user knows
        raise


def remove_temporaries(folder: Path, *names: str) -> None:
    """Remove what a killed `replacing` has left of these files (patterns) where nobody else is writing them."""
    for name in names:
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a folder (some filesystems cannot fsync a folder; that is not an error)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as indented, strict JSON (NaN and infinity are refused)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_plain(path: Path, max_bytes: int) -> bytes:
    """The content of a file that somebody else may have put there.

    Raises:
        OSError: there is none, it cannot be read, it has more than `max_bytes`, or it is a pipe or a device, from
            which a reader might wait or read for ever.
    """
    check_plain(path)
    with path.open("rb") as file:
        # Not `max_bytes` at once: room for all of them would be asked for, however small the file is.
        content = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))
    return content


def check_plain(path: Path) -> None:
    """Raise OSError unless `path` is a file, or a link to one."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
