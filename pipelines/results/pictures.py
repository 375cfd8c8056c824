"""What the figures share: the pictures they are listed by, and columns of a history as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.results.run import Run

WIDTH = 7.2
"""Inches of every figure: a page's column."""


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: File name without suffix.
        kind: accuracy, ops, cited, cell, or the table it belongs to: search, classification, detection, reid.
        title, caption: For the reader.
        campaign, dataset: Campaign and data set of its runs; empty where it shows none or several.
    """

    name: str
    kind: str
    title: str
    caption: str
    campaign: str = ""
    dataset: str = ""


def series(history: Sequence[dict[str, str]], x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns as numbers, without the rows where either is missing."""
    pairs = [(row[x], row[y]) for row in history if row.get(x) and row.get(y)]
    return [float(a) for a, _ in pairs], [float(b) for _, b in pairs]


def method_name(record: Run) -> str:
    """The method, its variant or the network, as tables call it."""
    return record.label


def slug(name: str) -> str:
    """A name as a part of a path: nothing in it can name another folder."""
    return re.sub(r"[^\w.-]+", "-", name).lstrip(".") or "-"
