"""Downloading, from a server on this machine that can be told to misbehave."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cifarfast.errors import UserError
from data_prep.sources.download import Download

CONTENT = np.random.default_rng(1).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `cut` breaks each transfer after so many bytes, `silent` never answers."""

    daemon_threads = True
    block_on_close = False
    content = CONTENT
    cut: int | None = None
    ranges = True
    silent = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.starts: list[int] = []
        self.closing = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if server.silent:
            server.closing.wait(10)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start:][: server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def download(server: Server, cache: Path, timeout_seconds: float = 5.0) -> Download:
    url = f"http://127.0.0.1:{server.server_port}/data.tar.gz"
    return Download(cache, url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), timeout_seconds)


def test_fetches_once(server: Server, tmp_path: Path) -> None:
    source = download(server, tmp_path)
    assert source.fetch().read_bytes() == CONTENT
    assert source.fetch() == tmp_path / "data.tar.gz"
    assert server.starts == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar.gz"]


def test_a_broken_transfer_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut = 120_000
    assert download(server, tmp_path).fetch().read_bytes() == CONTENT
    assert server.starts == [0, 120_000, 240_000]


def test_the_next_run_resumes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:1000])
    assert download(server, tmp_path).fetch().read_bytes() == CONTENT
    assert server.starts == [1000]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "data.tar.gz.part").write_bytes(b"x" * 1000)
    assert download(server, tmp_path).fetch().read_bytes() == CONTENT


def test_something_else_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match="is not the official archive"):
        download(server, tmp_path).fetch()
    assert not list(tmp_path.iterdir())
    server.content = b"<html>please log in</html>"
    with pytest.raises(UserError, match="offers 26 bytes, not 300000"):
        download(server, tmp_path).fetch()


def test_a_part_that_is_too_long_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT + b"x")
    with pytest.raises(UserError, match="is not the official archive"):
        download(server, tmp_path).fetch()
    assert download(server, tmp_path).fetch().read_bytes() == CONTENT


def test_silence_ends_with_what_to_do(server: Server, tmp_path: Path) -> None:
    server.silent = True
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:1000])
    start = time.monotonic()
    with pytest.raises(UserError, match=r"1000 bytes are kept.*CIFAR10_SOURCE.*synthetic"):
        download(server, tmp_path, 0.2).fetch()
    assert time.monotonic() - start < 5
    assert (tmp_path / "data.tar.gz.part").read_bytes() == CONTENT[:1000]


def test_nobody_there(server: Server, tmp_path: Path) -> None:
    source = Download(tmp_path, "http://127.0.0.1:9/data.tar.gz", 10, "0" * 64)
    with pytest.raises(UserError, match=r"cannot download .*refused.*CIFAR10_SOURCE"):
        source.fetch()
