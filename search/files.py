"""Files that are whole or absent: every write goes to a temporary neighbour and is renamed into place."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.errors import InputError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and renamed, on any error removed.

    The rename is atomic on POSIX, so a reader (or a run after kill -9) sees the old file or the new one,
    never a part.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(
    path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows as CSV, atomically.

    Args:
        path: The file.
        rows: One mapping a row; a missing key becomes an empty cell. Floats are written with ``repr``,
            so that they read back to the same bits.
        columns: The order of the columns; by default every key in order of first appearance.
    """
    names = list(columns) if columns is not None else list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_text(path, buffer.getvalue())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV file with a header as a list of rows of strings."""
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_json(path: str | Path) -> Any:
    """Read JSON in UTF-8 (or UTF-16 with a mark); a broken file is an :class:`InputError` that names the file."""
    file = Path(path)
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError("no such file", where=file) from None
    except IsADirectoryError:
        raise InputError("is a folder, a JSON file was expected", where=file) from None
    except RecursionError:
        raise InputError("not valid JSON (nested too deeply)", where=file) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=file) from None
    except ValueError as error:  # also numbers of more digits than Python converts
        raise InputError(f"not valid JSON ({error})", where=file) from None


def user_cache() -> Path:
    """The suite's folder in the user's cache, which may not be there: below ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        InputError: If the user has no home, as in a container started with another user's number.
    """
    if (cache := os.environ.get("XDG_CACHE_HOME")) is None:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError:
            raise InputError(
                "this user has no home folder for the cache",
                where="HOME",
                mend="set XDG_CACHE_HOME to a folder that may be written",
            ) from None
    return Path(cache) / "cp-nas-bench"


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file as hex, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The sha256 of a JSON value in canonical form (sorted keys, no spaces) as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
