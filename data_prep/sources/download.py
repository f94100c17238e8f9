"""The official binary archive, from its authors' site.

The standard library does it: it knows proxies, TLS and time-outs, and what is left (Range requests, a
digest) is a page. The transfer goes to a `.part` file that the next attempt, or the next run, continues.
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cifarfast.errors import UserError
from cifarfast.files import sha256_file
from data_prep.progress import stage
from data_prep.sources.base import Dataset
from data_prep.sources.batches import BatchArchive

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BYTES = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CHUNK_BYTES = 1 << 16
_INSTEAD = "set CIFAR10_SOURCE or --source to a copy of the archive, or use --source synthetic"


@dataclass(frozen=True)
class Download:
    """An archive on the web, kept in the folder `cache`."""

    cache: Path
    url: str = URL
    bytes: int = BYTES
    sha256: str = SHA256
    timeout_seconds: float = 30.0
    """How long the server may stay silent."""
    name: str = "download"

    def digest(self) -> str:
        """The SHA-256 that the archive must have: known before it is there."""
        return self.sha256

    def load(self) -> Dataset:
        """Download, unless it was before, and read."""
        return BatchArchive(self.name, self.fetch(), any_count=False).load()

    def fetch(self) -> Path:
        """The path of the complete, checked archive.

        Raises:
            UserError: the server cannot be reached, falls silent, or sends something else.
        """
        path = self.cache / self.url.rsplit("/", 1)[-1]
        if path.is_file() and sha256_file(path) == self.sha256:
            return path
        part = path.with_name(path.name + ".part")
        have = _size(part)
        with stage(f"downloading {self.url}", total=self.bytes, done=have, in_bytes=True) as advance:
            while have < self.bytes:
                problem = self._transfer(part, have, advance)
                before, have = have, _size(part)
                # As long as it brings something, a broken transfer is worth going on with.
                if have < self.bytes and have <= before:
                    kept = f"; {have} bytes are kept, the same command continues" if have else ""
                    raise UserError(f"cannot download {self.url} ({problem}{kept}): try later, or {_INSTEAD}")
        if have != self.bytes or sha256_file(part) != self.sha256:
            part.unlink()
            raise UserError(f"{self.url} is not the official archive (wrong size or SHA-256): {_INSTEAD}")
        return part.replace(path)

    def _transfer(self, part: Path, start: int, advance: Callable[[int], None]) -> str:
        """One request for what is missing, appended to `part`; returns why it ended."""
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                resumed = response.status == http.client.PARTIAL_CONTENT
                offered = (start if resumed else 0) + int(response.headers.get("Content-Length", self.bytes))
                if offered != self.bytes:
                    return f"the server offers {offered} bytes, not {self.bytes}"
                if start and not resumed:
                    advance(-start)
                with part.open("ab" if resumed else "wb") as file:
                    while chunk := response.read(_CHUNK_BYTES):
                        file.write(chunk)
                        advance(len(chunk))
            return "the connection was closed early"
        except TimeoutError:
            return f"no answer for {self.timeout_seconds:g} s"
        except urllib.error.URLError as error:
            return str(error.reason)
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            return str(error)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
