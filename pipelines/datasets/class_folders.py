"""The check of the user's own class folders: every file is opened, and what is odd about it named and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipelines.datasets.layout import Layout, listed
from pipelines.datasets.manifest import ContentHash
from pipelines.datasets.opened import open_all, shared_note
from search.errors import InputError
from search.pictures import EXTENSIONS, Facts, Listing, list_folder, shown, utf8

Verify = Literal["quick", "decode"]
Damaged = Literal["stop", "skip"]
SPLITS = ("train", "val")
ANNOTATIONS = "val_annotations.txt"
"""Tiny ImageNet's list of validation pictures and their classes."""
_ODD_MODES = {"L": "greyscale", "CMYK": "cmyk"}


@dataclass(frozen=True)
class _File:
    """A picture file: its split, its class, its path below the split's folder, and what opening it showed."""

    split: str
    name: str
    place: str
    size: int = 0
    facts: Facts = field(default_factory=Facts)


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
    listings = {(split, name): list_folder(root / split / name) for split in SPLITS for name in names}
    files = [file for key, listing in listings.items() for file in _files(root, *key, listing)]
    found = list(_opened(root, files, verify, damaged))
    used = [file for file in found if file.facts.damage is None]
    left_out = _empty_classes(root, names, used, damaged, listings)
    layout = _layout(
        [name for name in names if name not in left_out],
        [file for file in used if file.name not in left_out],
        skipped={s: [f.place for f in found if f.facts.damage is not None and f.split == s] for s in SPLITS},
        empty_classes=sorted(left_out),
    )
    layout.more["content"] = _content(used)
    above = {split: list_folder(root / split) for split in SPLITS}
    layout.more["left_out"] = {split: _litter(listings, split, above[split]) for split in SPLITS}
    digests = {split: [file.facts.digest for file in used if file.split == split] for split in SPLITS}
    layout.more["said"] = [*_said(listings, above), *shared_note(digests, "train", "val")]
    return layout


def _content(used: Sequence[_File]) -> str:
    """A sha256 that a changed picture changes, though names and sizes stay."""
    content = ContentHash()
    for file in used:
        content.text(f"{file.split}/{file.place} {file.facts.digest}")
    return content.hex()


def _litter(listings: dict[tuple[str, str], Listing], split: str, above: Listing) -> dict[str, int]:
    """How many entries of the class folders, and of the folder above them, are not used, by kind."""
    of = [listing for (part, _), listing in listings.items() if part == split]
    found = {
        "hidden entries": above.hidden + sum(listing.hidden for listing in of),
        "files with other endings": len(above.others) + sum(len(listing.others) for listing in of),
        "folders in class folders": sum(len(listing.folders) for listing in of),
        "pictures outside class folders": len(above.pictures),
        "links that lead nowhere": sum(len(listing.dangling) for listing in of),
    }
    return {kind: count for kind, count in found.items() if count}


def _said(listings: dict[tuple[str, str], Listing], above: dict[str, Listing]) -> list[str]:
    """A line for each kind of entry that was left out and may have been meant."""
    loose = [f"{split}/{name}" for split, found in above.items() for name in found.pictures]
    others = [f"{split}/{name}" for split, found in above.items() for name in found.others]
    inner: list[str] = []
    for (split, name), found in listings.items():
        others += [f"{split}/{name}/{file}" for file in found.others]
        inner += [f"{split}/{name}/{folder}" for folder in found.folders]
    places = {
        "pictures outside class folders": loose,
        "files with other endings": others,
        "folders in class folders": inner,
    }
    return [
        f"{len(names)} {what} left out: {listed({shown(name) for name in names})}"
        for what, names in places.items()
        if names
    ]


def _empty_classes(
    root: Path,
    names: list[str],
    used: list[_File],
    damaged: Damaged,
    listings: dict[tuple[str, str], Listing],
) -> set[str]:
    """Classes without a usable picture in train/ or in val/."""
    filled = {(file.split, file.name) for file in used}
    empty = [(name, split) for name in names for split in SPLITS if (split, name) not in filled]
    if empty and damaged == "stop":
        name, split = empty[0]
        raise InputError(
            "a class without pictures",
            where=root / split / name,
            allowed=", ".join(EXTENSIONS),
            mend=_nested(root / split / name, listings[split, name])
            or "fill or remove it, or set data.imagenet.damaged to skip",
        )
    left_out = {name for name, _ in empty}
    if len(left_out) == len(names):
        raise InputError("no class has a picture in both train/ and val/", where=root)
    return left_out


def _nested(folder: Path, listing: Listing) -> str | None:
    """How to mend a class folder whose pictures lie one folder deeper, as Tiny ImageNet's do."""
    for inner in listing.folders:
        count = len(list_folder(folder / inner).pictures)
        if count:
            return (
                f"its {count} pictures are in {inner}/: move them up (mv CLASS/{inner}/* CLASS/), and sort val/images/ "
                f"into val/CLASS/ by {ANNOTATIONS} where that is how they came"
            )
    return None


def _layout(
    classes: list[str], used: list[_File], skipped: dict[str, list[str]], empty_classes: list[str]
) -> Layout:
    content, counts = ContentHash(), {"classes": len(classes)}
    for split in SPLITS:
        counts[f"{split}_images"] = sum(file.split == split for file in used)
    for file in used:
        content.text(f"{file.split}/{file.place} {file.size}")
    modes = Counter(_ODD_MODES.get(f.facts.mode, "other_modes") for f in used if f.facts.mode != "RGB")
    pictures = {kind: modes[kind] for kind in ("greyscale", "cmyk", "other_modes")}
    pictures["damaged"] = sum(len(places) for places in skipped.values())
    more = {"pictures": pictures, "skipped": skipped, "empty_classes": empty_classes}
    return Layout(counts, content.hex(), classes=classes, more=more)


def _class_names(root: Path, classes: int | None) -> list[str]:
    if (root / "val" / ANNOTATIONS).is_file():
        raise InputError(
            f"val/ is Tiny ImageNet's as downloaded, with {ANNOTATIONS}",
            where=root,
            allowed="train/<class>/*.jpg and val/<class>/*.jpg",
            mend="two steps: move train/CLASS/images/* up into train/CLASS/; sort val/images/ into val/CLASS/ "
            f"by the two first columns of val/{ANNOTATIONS}",
        )
    found = {split: _folders(root, split) for split in SPLITS}
    only = {"train": found["train"] - found["val"], "val": found["val"] - found["train"]}
    differences = "; ".join(f"only in {split}: {listed(names)}" for split, names in only.items() if names)
    if differences:
        raise InputError(f"train and val do not have the same classes: {differences}", where=root)
    if classes is not None and len(found["train"]) != classes:
        raise InputError(f"{len(found['train'])} class folders", where=root / "train", allowed=classes)
    return sorted(found["train"])


def _nearby(root: Path) -> str | None:
    """Where the layout is, if one folder deeper."""
    inner = [name for name in list_folder(root).folders if all((root / name / s).is_dir() for s in SPLITS)]
    return f"set data.imagenet.folder to {shown(root / inner[0])}" if inner else None


def _folders(root: Path, split: str) -> set[str]:
    folder = root / split
    if not folder.is_dir():
        raise InputError(
            f"no folder {split}/ in it",
            where=root,
            allowed="train/<class>/ and val/<class>/",
            mend=_nearby(root)
            or (
                "ImageNet's validation pictures come in one folder: sort them into class folders first"
                if split == "val"
                else None
            ),
        )
    names = {utf8(name, folder) for name in list_folder(folder).folders}
    if not names:
        raise InputError("no class folder in it", where=folder, allowed=f"{split}/<class>/*.jpg")
    return names


def _files(root: Path, split: str, name: str, listing: Listing) -> Iterator[_File]:
    for file in listing.pictures:
        yield _File(split, name, f"{name}/{file}", (root / split / name / file).stat().st_size)
    for file in listing.dangling:
        yield _File(split, name, f"{name}/{file}", facts=Facts(damage="a link that leads nowhere"))


def _opened(root: Path, files: Sequence[_File], verify: Verify, damaged: Damaged) -> Iterator[_File]:
    """The files with what opening each showed; stops at a damaged one if told so."""
    whole = [root / file.split / file.place for file in files if file.facts.damage is None]
    opened = open_all(whole, decode=verify == "decode")
    for file in files:
        seen = file if file.facts.damage is not None else replace(file, facts=next(opened))
        if seen.facts.damage is not None and damaged == "stop":
            raise InputError(
                seen.facts.damage,
                where=root / file.split / file.place,
                mend="mend or remove it, or set data.imagenet.damaged to skip",
            )
        yield seen
