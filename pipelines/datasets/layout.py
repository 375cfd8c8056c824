"""Checks of the user's own folders, before any long work, with a message that says what to mend."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.datasets.manifest import write_manifest
from pipelines.stage import output_folder
from search.errors import InputError

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


def describe(target: Path, root: Path, name: str, found: Layout, *, hashed: str, **more: Any) -> None:
    """Write ``target``: nothing but the manifest of a checked folder of the user's.

    Args:
        target: The prepared data set's folder.
        root: The user's folder.
        name: The data set's name in the results.
        found: What the check found.
        hashed: What the sha256 is over, for the manifest's note.
        more: What the stages of this task need besides.
    """
    with output_folder(target) as folder:
        write_manifest(
            folder,
            name=name,
            stand_in=False,
            note=f"the user's folder; sha256 is over {hashed}",
            sha256=found.sha256,
            counts=found.counts,
            root=str(root),
            **more,
            classes=found.classes,
            **found.more,
        )


def listed(names: set[str]) -> str:
    """The first few of some names, and how many more there are."""
    shown = sorted(names)[:SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
