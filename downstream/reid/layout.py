"""Are the pictures where and what they should be? Checked before a run; messages name the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import InputError

TRAIN, GALLERY, QUERY = "bounding_box_train", "bounding_box_test", "query"
IMAGES = (".jpg", ".png")
NAMING = "IDENTITY_cCAMERA..., e.g. 0001_c1s1_000001_00.jpg (or .png); identity -1 is junk, 0 a distractor"
_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?(?:_[A-Za-z0-9_]*)?\.(?:jpg|png)")
# Market-1501's own archive carries these Windows files in its picture folders.
_IGNORED = ("Thumbs.db",)


@dataclass(frozen=True)
class Picture:
    """One picture: its file, the identity (-1 junk, 0 distractor) and the camera, counted from 1."""

    path: Path
    pid: int
    camera: int


def parse(path: Path) -> Picture:
    """Read identity and camera from a file name in Market-1501's manner.

    Raises:
        InputError: The name is another.

    Examples:
        >>> parse(Path("0002_c3s1_000451_03.jpg")).camera
        3
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(
            f"the file name {path.name!r} is not in Market-1501's manner", where=path, allowed=NAMING
        )
    camera = int(match["camera"])
    if camera < 1:
        raise InputError("cameras are counted from 1", where=path, allowed=NAMING)
    return Picture(path, int(match["pid"]), camera)


def pictures(folder: Path) -> list[Picture]:
    """All pictures of one split in order of their names; hidden files are no pictures.

    Raises:
        InputError: The folder is missing or empty, or a file in it has another name.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, mend=f"expected {TRAIN}/, {GALLERY}/ and {QUERY}/")
    files = sorted(entry for entry in folder.iterdir() if _counts(entry))
    if not files:
        raise InputError("an empty split: no .jpg or .png picture in this folder", where=folder)
    return [parse(file) for file in files]


def _counts(entry: Path) -> bool:
    return not entry.name.startswith(".") and entry.name not in _IGNORED


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set: training pictures, queries, and the gallery they are sought in."""

    train: Sequence[Picture]
    query: Sequence[Picture]
    gallery: Sequence[Picture]


def read(root: Path) -> Splits:
    """Read a folder in Market-1501's layout; only names are read, no picture is opened.

    Raises:
        InputError: See :func:`pictures`; or a training picture or a query shows no identity; or an identity
            is in both the training pictures and the queries.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=root, mend="give the folder that holds the pictures")
    splits = Splits(pictures(root / TRAIN), pictures(root / QUERY), pictures(root / GALLERY))
    for picture in (*splits.train, *splits.query):
        if picture.pid < 1:
            raise InputError("identities -1 and 0 belong into the gallery only", where=picture.path)
    shared = {picture.pid for picture in splits.train} & {picture.pid for picture in splits.query}
    if shared:
        raise InputError(f"identity {_some(shared)} is in both {TRAIN} and {QUERY}", where=root)
    return splits


def check(splits: Splits, *, where: object) -> None:
    """Check what evaluation relies on, for any data set.

    Args:
        splits: What was read.
        where: The folder, for messages.

    Raises:
        InputError: A split is empty, or a query shows an identity with no gallery image of another camera.
    """
    for name, split in (("training", splits.train), ("query", splits.query), ("gallery", splits.gallery)):
        if not split:
            raise InputError(f"an empty split: no {name} pictures", where=where)
    cameras: dict[int, set[int]] = {}
    for picture in splits.gallery:
        cameras.setdefault(picture.pid, set()).add(picture.camera)
    lost = [picture for picture in splits.query if not cameras.get(picture.pid, set()) - {picture.camera}]
    if lost:
        first = lost[0]
        others = {picture.pid for picture in lost} - {first.pid}
        more = f" (the same for identity {_some(others)})" if others else ""
        raise InputError(
            f"identity {first.pid}, seen by camera {first.camera}, "
            f"has no gallery image of another camera{more}",
            where=first.path,
        )


def _some(pids: Iterable[int]) -> str:
    listed = sorted(pids)
    return ", ".join(map(str, listed[:5])) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
