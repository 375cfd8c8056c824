"""MSMT17 as its authors give it, first and second version: lists of "FOLDER/NAME IDENTITY", the camera in the name."""

from __future__ import annotations

from pathlib import Path

from downstream.reid.layout import Picture, Splits
from search.errors import InputError

FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
"""The folders of training and test pictures, of either version."""
LISTS = {"train": "list_train.txt", "query": "list_query.txt", "gallery": "list_gallery.txt"}
"""The lists that are used. Papers do not add list_val.txt to the training pictures, nor does Torchreid."""


def read(root: Path) -> Splits:
    """Read the lists in ``root``; no picture is opened. Identities of training and test are numbered apart.

    Raises:
        InputError: A folder is missing, or a line is not as it should be.
    """
    there = [pair for pair in FOLDERS if all((root / name).is_dir() for name in pair)]
    if not there:
        raise InputError(
            "no folders of pictures", where=root, allowed=" or ".join(" and ".join(pair) for pair in FOLDERS)
        )
    train, test = (root / name for name in there[-1])
    lists = {split: _read(root / name, train if split == "train" else test) for split, name in LISTS.items()}
    return Splits(lists["train"], lists["query"], lists["gallery"])


def _read(path: Path, folder: Path) -> list[Picture]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", where=path) from None
    return sorted(
        (_picture(line, path, folder) for line in lines if line.strip()), key=lambda picture: picture.path
    )


def _picture(line: str, path: Path, folder: Path) -> Picture:
    name, _, identity = line.strip().rpartition(" ")
    parts = name.strip().rpartition("/")[2].split("_")
    if not identity.isdecimal() or len(parts) < 3 or not parts[2].isdecimal() or not int(parts[2]):
        raise InputError(
            f"the line {line.strip()!r:.80} is not a picture and its identity",
            where=path,
            allowed="e.g. 0000/0000_000_01_0303morning_0008_0.jpg 0, the camera third in the name",
        )
    return Picture(folder / name.strip(), int(identity), int(parts[2]))
