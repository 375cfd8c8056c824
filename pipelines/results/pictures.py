"""What the figures share: the pictures they are listed by, and columns of a history as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.results.columns import METHOD_NAMES
from pipelines.results.records import Record

WIDTH = 7.2
"""Inches of every figure: a page's column."""


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: File name without suffix.
        kind: search, cell, accuracy, cited or training: the part of the report it belongs to.
        title, caption: For the reader.
    """

    name: str
    kind: str
    title: str
    caption: str


def series(history: Sequence[dict[str, str]], x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns as numbers, without the rows where either is missing."""
    pairs = [(row[x], row[y]) for row in history if row.get(x) and row.get(y)]
    return [float(a) for a, _ in pairs], [float(b) for _, b in pairs]


def percent(values: Sequence[float]) -> list[float]:
    """Shares as percent."""
    return [100 * value for value in values]


def method_name(record: Record) -> str:
    """The method or network as tables call it."""
    return METHOD_NAMES.get(record.family, record.family)
