from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.datasets import fetch
from search.errors import InputError

CONTENT = bytes(range(256)) * 300
ARCHIVE = fetch.Archive("archive.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Server(ThreadingHTTPServer):
    """Serves CONTENT with byte ranges; breaks off after ``limit`` bytes if that is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.limit: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        rest = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest if server.limit is None else rest[: server.limit])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_download_into_cache_happens_once(server: Server) -> None:
    first = fetch.cached(ARCHIVE, partial(fetch.download, server.url))
    second = fetch.cached(ARCHIVE, partial(fetch.download, server.url))
    assert first == second
    assert first.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_broken_download_goes_on_where_it_stopped(server: Server) -> None:
    server.limit = 1000
    with pytest.raises(fetch.Unreachable, match=r"broke off after 1000 of 76800 bytes"):
        fetch.cached(ARCHIVE, partial(fetch.download, server.url))
    assert [path.name for path in fetch.cache_folder().glob("archive*")] == ["archive.bin.part"]
    server.limit = None
    path = fetch.cached(ARCHIVE, partial(fetch.download, server.url))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_complete_part_is_not_fetched_again(server: Server) -> None:
    (fetch.cache_folder() / "archive.bin.part").write_bytes(CONTENT)
    assert fetch.cached(ARCHIVE, partial(fetch.download, server.url)).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_removed(server: Server) -> None:
    expected = fetch.Archive("archive.bin", "0" * 64, len(CONTENT))
    with pytest.raises(InputError, match=r"archive\.bin\.part: wrong checksum: sha256 .*, expected 0000"):
        fetch.cached(expected, partial(fetch.download, server.url))
    assert not list(fetch.cache_folder().glob("archive*"))


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server) -> None:
    (fetch.cache_folder() / "archive.bin").write_bytes(CONTENT[:-1])
    assert fetch.cached(ARCHIVE, partial(fetch.download, server.url)).read_bytes() == CONTENT


def test_no_server_is_unreachable(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("archive.bin", "").replace(str(server.server_address[1]), "9")
    with pytest.raises(fetch.Unreachable, match="refused"):
        fetch.download(url, tmp_path / "x.part")


def test_half_downloaded_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "archive.bin"
    path.write_bytes(CONTENT[:5])
    with pytest.raises(InputError, match=r"archive\.bin: half-downloaded archive: 5 of 76800 bytes"):
        ARCHIVE.check(path)


def test_a_failing_client_gives_its_own_words(tmp_path: Path) -> None:
    # an invalid requirement: pip refuses it without asking any registry
    with pytest.raises(fetch.Unreachable, match=r"pip failed: ERROR: Invalid requirement"):
        fetch.pip_download("no such === requirement", tmp_path / "x.part")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_no_registry_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(
        fetch.Unreachable, match=r"npm failed: .*reason: .*ECONNREFUSED 127\.0\.0\.1:9$"
    ) as caught:
        fetch.npm_pack("no-such-package@0.0.0", tmp_path / "x.part")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
