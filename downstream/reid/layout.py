"""Are the pictures where and what they should be? Checked before a run; messages name the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.errors import InputError
from search.pictures import EXTENSIONS, list_folder

TRAIN, GALLERY, QUERY = "bounding_box_train", "bounding_box_test", "query"
NAMING = "IDENTITY_cCAMERA..., e.g. 0001_c1s1_000001_00.jpg; identity -1 is junk, 0 a distractor"
JUNK, DISTRACTOR = -1, 0
# Market-1501's own archive has pictures that end in .jpg.jpg
_ENDINGS = "|".join(re.escape(ending) for ending in EXTENSIONS)
_NAME = re.compile(
    rf"(?P<pid>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?(?:_[A-Za-z0-9_]*)?(?:{_ENDINGS}){{1,2}}", re.IGNORECASE
)


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


def pictures(folder: Path) -> tuple[list[Picture], dict[str, int]]:
    """All pictures of one split in order of their names, and how many entries are none, by kind.

    Raises:
        InputError: The folder is missing or has no picture, or a picture in it has another name.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, mend=f"expected {TRAIN}/, {GALLERY}/ and {QUERY}/")
    found = list_folder(folder)
    if found.dangling:
        raise InputError(
            "a link that leads nowhere", where=folder / found.dangling[0], mend="mend or remove it"
        )
    if not found.pictures:
        raise InputError(
            "an empty split: no picture in this folder",
            where=folder,
            allowed=", ".join(EXTENSIONS),
            mend=f"folders in it ({found.folders[0]}, ...) are not searched: move their pictures up"
            if found.folders
            else None,
        )
    litter = {
        "hidden entries": found.hidden,
        "files with other endings": len(found.others),
        "folders": len(found.folders),
    }
    return [parse(folder / name) for name in found.pictures], {k: n for k, n in litter.items() if n}


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set: training pictures, queries, and the gallery they are sought in.

    Attributes:
        left_out: How many entries of each split's folder are not in it, by reason.
    """

    train: Sequence[Picture]
    query: Sequence[Picture]
    gallery: Sequence[Picture]
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def read(root: Path) -> Splits:
    """Read a folder in Market-1501's layout, its gallery without junk; only names are read, no picture is opened.

    Raises:
        InputError: See :func:`pictures`; or a training picture or a query shows no identity; or an identity
            is in both the training pictures and the queries.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=root, mend="give the folder that holds the pictures")
    (train, train_out), (query, query_out), (gallery, gallery_out) = (
        pictures(root / name) for name in (TRAIN, QUERY, GALLERY)
    )
    kept = [picture for picture in gallery if picture.pid != JUNK]
    if len(kept) < len(gallery):
        gallery_out = {**gallery_out, "junk pictures (identity -1)": len(gallery) - len(kept)}
    splits = Splits(train, query, kept, {"train": train_out, "query": query_out, "gallery": gallery_out})
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
    seen = {picture.camera for picture in (*splits.query, *splits.gallery)}
    if len(seen) == 1:
        raise InputError(
            f"all queries and gallery pictures are of camera {min(seen)}: no query can have a match, since pictures of "
            "its own camera do not count",
            where=where,
            allowed="an identity in query/ and, by another camera, in the gallery: 0001_c1_1.jpg and 0001_c2_1.jpg",
            mend="number the recordings, sessions or days as cameras in the file names",
        )
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
