"""Fingerprints of the user's own folders, so that a changed picture runs again what was made from it.

``python -m pipelines.code``, which ``make reproduce`` runs first, puts them into pipelines/code.yaml, on which the
stages that prepare data depend. A file is hashed once, and again when its size or its time of change is another; DVC
itself only compares the fingerprints, so that asking for the status reads no picture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from search.errors import InputError
from search.files import read_json, sha256_file, sha256_json, write_json
from search.pictures import shown

NONE, ABSENT = "none", "absent"
"""What stands for data that is not in a folder of the user's, and for a folder that is not there."""
CACHE = Path("data/.sources")
"""Size, time and hash of every file when it was last looked at, a file for each data set."""
REPORT = 10_000
"""Files from one progress line to the next."""
KINDS = {
    "imagenet": ("folder",),
    "detection": ("voc", "coco"),
    "reid": ("market1501", "cuhk03", "msmt17", "custom"),
}
"""The kinds of each data set that are a folder of the user's."""


def fingerprints(data: Mapping[str, Mapping[str, Any]], cache: Path = CACHE) -> dict[str, str]:
    """The fingerprint of each data set's folder.

    Args:
        data: The section ``data`` of the parameters.
        cache: Where sizes, times and hashes are kept.
    """
    return {name: _fingerprint(name, data[name], cache / f"{name}.json") for name in KINDS if name in data}


def _fingerprint(name: str, settings: Mapping[str, Any], cache: Path) -> str:
    if settings.get("kind") not in KINDS[name] or not settings.get("folder"):
        return NONE
    root = Path(str(settings["folder"])).expanduser().absolute()
    if not root.is_dir():
        return ABSENT
    known = _known(cache, root)
    files = sorted(_files(root, _parts(settings), ".mat" if settings["kind"] == "cuhk03" else ""))
    found = dict(zip((place for place, _ in files), _hashes(files, known), strict=True))
    if found != known:
        write_json(cache, {"root": str(root), "files": found})
    return f"sha256-{sha256_json([[place, digest] for place, (*_, digest) in found.items()])}"


def _known(cache: Path, root: Path) -> dict[str, list[Any]]:
    """What was found last time; nothing if that was another folder, or the file is damaged."""
    try:
        content = read_json(cache)
        return dict(content["files"]) if content["root"] == str(root) else {}
    except (InputError, KeyError, TypeError, ValueError):
        return {}


def _parts(settings: Mapping[str, Any]) -> list[str]:
    """The files and folders, below the data set's, that its preparation reads."""
    if settings["kind"] == "folder":
        return ["train", "val"]
    entries = [str(entry) for split in ("train", "val") for entry in settings.get(split) or []]
    if settings["kind"] == "voc":
        entries = [entry.rpartition("/")[0] for entry in entries]
    return sorted(set(entries)) or ["."]


def _files(root: Path, parts: Sequence[str], ending: str) -> Iterator[tuple[str, Path]]:
    """Names below ``root`` and paths of all files that are not hidden; links to folders are followed."""
    found: dict[str, Path] = {}
    for part in parts:
        for path in [root / part] if (root / part).is_file() else _walk(root / part):
            if path.name.endswith(ending):
                found[shown(os.path.relpath(path, root))] = path
    return iter(found.items())


def _walk(start: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden; each real folder once, since links may lead in a circle."""
    seen: set[str] = set()
    for folder, below, names in os.walk(start, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else [name for name in below if not name.startswith(".")]
        if real not in seen:
            yield from (Path(folder, name) for name in names if not name.startswith("."))
        seen.add(real)


def _hashes(files: Sequence[tuple[str, Path]], known: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Size, time (ns) and sha256 of each file; of one that cannot be read its hash is empty."""

    def look(entry: tuple[str, Path]) -> list[Any]:
        place, path = entry
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            before = known.get(place)
            return before if before and before[:2] == stamp else [*stamp, sha256_file(path)]
        except OSError:
            return [0, 0, ""]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, found in enumerate(pool.map(look, files), 1):
            yield found
            if done % REPORT == 0:
                print(f"looked at {done} of {len(files)} files", file=sys.stderr, flush=True)
