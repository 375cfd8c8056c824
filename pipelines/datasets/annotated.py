"""What the readers of annotations give: pictures with their boxes as they were written, before anything is checked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.datasets.coco import Box
from search.errors import InputError


@dataclass
class Annotated:
    """One picture as its annotations describe it.

    Attributes:
        name: Its file, relative to the folder of the split's pictures.
        path: Its file.
        said_by: The file that names it, for messages.
        size: Width and height as written, None where the annotations do not say.
        boxes: Its boxes with, for messages, what each is called.
        identity: Its image id, where the source has one that is a whole number.
    """

    name: str
    path: Path
    said_by: Path
    size: tuple[int, int] | None
    boxes: list[tuple[Box, str]] = field(default_factory=list)
    identity: int | None = None


@dataclass
class Source:
    """One split as it was read.

    Attributes:
        folder: The folder of its pictures, relative to the data set's.
        pictures: Its pictures, in the order of the files.
        origin: The coordinate of the first pixel in the source: 0, or 1 in VOC's files.
        mend: What to do about a box that leaves its picture.
        left_out: How many boxes were left out in reading, by reason.
        made: How often something that the source lacks was made up, by what.
    """

    folder: str
    origin: int = 0
    mend: str = "cut or remove it"
    pictures: list[Annotated] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)


def number(value: Any, what: str, where: object) -> float:
    """A finite number, also one that was written as text.

    Raises:
        InputError: It is none.
    """
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} is {_short(value)}, not a number", where=where) from None
    if not math.isfinite(found):
        raise InputError(f"{what} is {_short(value)}, not a finite number", where=where)
    return found


def size(width: Any, height: Any, what: str, where: object) -> tuple[int, int] | None:
    """Width and height; None if one of them is missing, empty or 0.

    Raises:
        InputError: One of them is not a whole number of pixels.
    """
    if any(value in (None, "", 0, "0") for value in (width, height)):
        return None
    numbers = (number(width, f"{what}width", where), number(height, f"{what}height", where))
    if not all(found.is_integer() and found >= 0 for found in numbers):
        raise InputError(f"{what}size {width} x {height} is not a whole number of pixels", where=where)
    return (int(numbers[0]), int(numbers[1])) if all(numbers) else None


def flag(value: Any) -> bool | None:
    """0, 1, true or false in any writing; nothing is 0. None: the value says neither."""
    text = str(value if value is not None else "").strip().lower()
    if text in ("", "0", "0.0", "false", "no", "none"):
        return False
    return True if text in ("1", "1.0", "true", "yes") else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
