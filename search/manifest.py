"""manifest.json of a prepared data set, as every stage reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.errors import InputError
from search.files import read_json

NAME = "manifest.json"


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a prepared data set, with ``root``, the folder of its pictures, made a path that can be opened.

    Args:
        folder: The prepared data set, such as ``data/cifar10``.

    Raises:
        InputError: If there is none, or it is no description of a data set.
    """
    path = Path(folder) / NAME
    again = f"run: python -m pipelines.prepare {Path(folder).name}"
    if not path.exists():
        raise InputError("no prepared data here", where=folder, mend=again)
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise InputError("describes no data set", where=path, mend=again)
    return manifest | {"root": str(Path(folder) / manifest.get("root", "."))}
