"""Checks of the user's own folders, before any long work, with a message that says what to mend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.datasets.manifest import ContentHash
from search.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")
SHOWN = 5


@dataclass(frozen=True)
class Layout:
    """What a check found: counts, classes, a sha256 over file names and sizes, and what the stage needs."""

    counts: dict[str, int]
    sha256: str
    classes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def existing_folder(folder: str | None, key: str) -> Path:
    """The user's folder as an absolute path; ``key`` is where params.yaml names it."""
    path = Path(str(folder)).expanduser().absolute()
    if not path.is_dir():
        raise InputError(
            "no such folder", where=path, mend=f"set {key} in params.yaml to your data set's folder"
        )
    return path


def listed(names: set[str]) -> str:
    """The first few of some names, and how many more there are."""
    shown = sorted(names)[:SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture's."""
    return name.lower().endswith(PICTURES)


def pictures(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The picture files of a folder by name; an empty file is an error, hidden files are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.name.startswith(".") and is_picture(entry.name) and entry.is_file():
            if entry.stat().st_size == 0:
                raise InputError("empty file: half-copied?", where=entry.path)
            yield entry


def check_image_folder(root: Path, classes: int | None) -> Layout:
    """Check ``train/<class>/*`` and ``val/<class>/*``.

    Args:
        root: The folder that holds train/ and val/.
        classes: The number of classes there must be; None for any.
    """
    found = {split: _class_folders(root, split) for split in ("train", "val")}
    only = {"train": found["train"] - found["val"], "val": found["val"] - found["train"]}
    differences = "; ".join(f"only in {split}: {listed(names)}" for split, names in only.items() if names)
    if differences:
        raise InputError(f"train and val do not have the same classes: {differences}", where=root)
    if classes is not None and len(found["train"]) != classes:
        raise InputError(f"{len(found['train'])} class folders", where=root / "train", allowed=classes)
    content, counts = ContentHash(), {"classes": len(found["train"])}
    for split, names in found.items():
        counts[f"{split}_images"] = sum(
            _count_class(root / split / name, root, content) for name in sorted(names)
        )
    return Layout(counts, content.hex(), classes=sorted(found["train"]))


def _class_folders(root: Path, split: str) -> set[str]:
    folder = root / split
    if not folder.is_dir():
        raise InputError(
            f"no folder {split}/ in it",
            where=root,
            allowed="train/<class>/ and val/<class>/",
            mend="ImageNet's validation pictures come in one folder: sort them into class folders first"
            if split == "val"
            else None,
        )
    names = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if not names:
        raise InputError("no class folder in it", where=folder, allowed=f"{split}/<class>/*.jpg")
    return names


def _count_class(folder: Path, root: Path, content: ContentHash) -> int:
    count = 0
    for entry in pictures(folder):
        content.text(f"{Path(entry.path).relative_to(root)} {entry.stat().st_size}")
        count += 1
    if not count:
        raise InputError("a class without pictures", where=folder, allowed=", ".join(PICTURES))
    return count
