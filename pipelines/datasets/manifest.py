"""manifest.json, which describes a prepared data set to the stages that use it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from search.files import write_json

SCHEMA = 1


class ContentHash:
    """A sha256 over named arrays: over what a data set shows, whatever wrote its files."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, array: np.ndarray) -> None:
        """Take in one array under its name."""
        self._digest.update(f"{name}\n{array.dtype.str}{array.shape}\n".encode())
        self._digest.update(np.ascontiguousarray(array).tobytes())

    def text(self, line: str) -> None:
        """Take in one line of text."""
        self._digest.update(f"{line}\n".encode())

    def hex(self) -> str:
        """The sha256 of all that was taken in."""
        return self._digest.hexdigest()


def write_manifest(
    folder: Path,
    *,
    name: str,
    stand_in: bool,
    note: str,
    sha256: str,
    counts: dict[str, int],
    root: str = ".",
    **more: Any,
) -> None:
    """Write ``folder/manifest.json``.

    Args:
        folder: The prepared data set.
        name: The data set's name in every result.
        stand_in: Whether it stands in for the data set that the papers use.
        note: What a reader of a number must know.
        sha256: Of the content, or (the user's own folders) of the list of file names and sizes.
        counts: Pictures, classes, boxes, identities.
        root: The folder that holds the pictures: relative to ``folder``, or absolute.
        more: What the stages of this task need besides.
    """
    common = {"schema": SCHEMA, "name": name, "stand_in": stand_in, "note": note, "sha256": sha256}
    write_json(folder / "manifest.json", {**common, "counts": counts, "root": root, **more})
