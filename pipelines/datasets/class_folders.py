"""The check of the user's own class folders: every file is opened, and what is odd about it named and counted."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from pipelines.datasets.layout import PICTURES, Layout, is_picture, listed
from pipelines.datasets.manifest import ContentHash
from search.errors import InputError

Verify = Literal["quick", "decode"]
Damaged = Literal["stop", "skip"]
SPLITS = ("train", "val")
BLOCK = 4096
"""Files that are handed to the threads at once."""
REPORT = 50_000
"""Files from one progress line to the next."""
_ODD_MODES = {"L": "greyscale", "CMYK": "cmyk"}
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class _File:
    """A picture file: its class, its path below the split's folder, its size in bytes, and what was found."""

    split: str
    name: str
    place: str
    size: int
    mode: str | None = None
    damage: str | None = None


def check_class_folders(root: Path, classes: int | None, verify: Verify, damaged: Damaged) -> Layout:
    """Check ``train/<class>/*`` and ``val/<class>/*``.

    Args:
        root: The folder that holds train/ and val/.
        classes: The number of class folders there must be; None for any.
        verify: ``quick`` reads every file's header, ``decode`` all of it (which finds a truncated one).
        damaged: ``stop`` at a damaged file or a class without pictures, or ``skip``: leave them out, by name.

    Returns:
        The counts, the classes and, for the manifest, ``pictures`` (how many are greyscale, in CMYK, of another
        mode that is converted, damaged), ``skipped`` (damaged files by split), ``empty_classes``.

    Raises:
        InputError: For another layout; with ``stop`` also for what is damaged or empty.
    """
    names = _class_names(root, classes)
    files = [file for split in SPLITS for name in names for file in _files(root, split, name)]
    found = []
    for file in _inspected(root, files, verify):
        if file.damage is not None and damaged == "stop":
            raise InputError(
                file.damage,
                where=root / file.split / file.place,
                mend="mend or remove it, or set data.imagenet.damaged to skip",
            )
        found.append(file)
    used = [file for file in found if file.damage is None]
    left_out = _empty_classes(root, names, used, damaged)
    return _layout(
        [name for name in names if name not in left_out],
        [file for file in used if file.name not in left_out],
        skipped={s: [f.place for f in found if f.damage is not None and f.split == s] for s in SPLITS},
        empty_classes=sorted(left_out),
    )


def _empty_classes(root: Path, names: list[str], used: list[_File], damaged: Damaged) -> set[str]:
    """Classes without a usable picture in train/ or in val/."""
    filled = {(file.split, file.name) for file in used}
    empty = [(name, split) for name in names for split in SPLITS if (split, name) not in filled]
    if empty and damaged == "stop":
        name, split = empty[0]
        raise InputError(
            "a class without pictures",
            where=root / split / name,
            allowed=", ".join(PICTURES),
            mend="fill or remove it, or set data.imagenet.damaged to skip",
        )
    left_out = {name for name, _ in empty}
    if len(left_out) == len(names):
        raise InputError("no class has a picture in both train/ and val/", where=root)
    return left_out


def _layout(
    classes: list[str], used: list[_File], skipped: dict[str, list[str]], empty_classes: list[str]
) -> Layout:
    content, counts = ContentHash(), {"classes": len(classes)}
    for split in SPLITS:
        counts[f"{split}_images"] = sum(file.split == split for file in used)
    for file in used:
        content.text(f"{file.split}/{file.place} {file.size}")
    modes = Counter(_ODD_MODES.get(str(file.mode), "other_modes") for file in used if file.mode != "RGB")
    pictures = {kind: modes[kind] for kind in ("greyscale", "cmyk", "other_modes")}
    pictures["damaged"] = sum(len(places) for places in skipped.values())
    more = {"pictures": pictures, "skipped": skipped, "empty_classes": empty_classes}
    return Layout(counts, content.hex(), classes=classes, more=more)


def _class_names(root: Path, classes: int | None) -> list[str]:
    found = {split: _folders(root, split) for split in SPLITS}
    only = {"train": found["train"] - found["val"], "val": found["val"] - found["train"]}
    differences = "; ".join(f"only in {split}: {listed(names)}" for split, names in only.items() if names)
    if differences:
        raise InputError(f"train and val do not have the same classes: {differences}", where=root)
    if classes is not None and len(found["train"]) != classes:
        raise InputError(f"{len(found['train'])} class folders", where=root / "train", allowed=classes)
    return sorted(found["train"])


def _folders(root: Path, split: str) -> set[str]:
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


def _files(root: Path, split: str, name: str) -> Iterator[_File]:
    for entry in sorted(os.scandir(root / split / name), key=lambda entry: entry.name):
        if not entry.name.startswith(".") and is_picture(entry.name) and entry.is_file():
            yield _File(split, name, f"{name}/{entry.name}", entry.stat().st_size)


def _inspected(root: Path, files: list[_File], verify: Verify) -> Iterator[_File]:
    """The files in their order with mode and damage; decoding lets go of the interpreter, so threads share it."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(files), BLOCK):
            yield from pool.map(lambda file: _inspect(root, file, verify), files[start : start + BLOCK])
            done = min(start + BLOCK, len(files))
            if done // REPORT > start // REPORT:
                print(f"checked {done} of {len(files)} pictures", file=sys.stderr, flush=True)


def _inspect(root: Path, file: _File, verify: Verify) -> _File:
    if not file.size:
        return replace(file, damage="empty file: half-copied?")
    try:
        with Image.open(root / file.split / file.place) as image:
            mode = image.mode
            if verify == "decode":
                image.convert("RGB")
    except _UNREADABLE as error:
        return replace(file, damage=f"cannot be read as an image ({error})")
    return replace(file, mode=mode)
