"""Tables for reading: sections by data set, so that numbers of different data sets never share a column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.results.column import DASH, Column, Row, Table
from pipelines.results.level import CITED
from pipelines.results.literature import references

STAND_IN_FOR = {
    "classification": "ImageNet",
    "detection": "PASCAL VOC and COCO",
    "reid": "Market-1501",
}
OWN_DATA = "the paper's data set"
PAPER_HEAD = "paper, on the same data set"
PAPER_HEADS = {"search": "paper, its found network retrained on its own data"}
"""Heading of the literature's numbers beside ours."""
ASIDE = {"paper": "", "other": " · other data", "stand-in": " · stand-in"}
"""What stands behind a data set in a heading."""


@dataclass(frozen=True)
class View:
    """A table as it is read.

    Attributes:
        title: What its numbers belong to.
        note: What to know before comparing, or nothing.
        kind: ours or cited.
        data_kind: What its numbers were measured on: paper, other or stand-in.
        columns: The columns.
        rows: The rows.
        details: Columns of the second table, where each number comes from.
    """

    title: str
    note: str
    kind: str
    data_kind: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    details: tuple[Column, ...] = field(default=())

    @property
    def stand_in(self) -> bool:
        """Whether its numbers are a stand-in data set's."""
        return self.data_kind == "stand-in"

    @property
    def comparable(self) -> bool:
        """Whether its numbers may be compared with a paper's at all."""
        return self.data_kind == "paper"

    def cells(self, columns: Iterable[Column]) -> list[list[str]]:
        """The texts of the given columns, row by row."""
        chosen = tuple(columns)
        return [[column.text(row) for column in chosen] for row in self.rows]


def views(table: Table, rows: list[Row]) -> list[View]:
    """The sections of a table: one a campaign and data set of ours, then one a cited data set."""
    ours: dict[tuple[tuple[str, ...], str, str], list[Row]] = {}
    others: dict[str, list[Row]] = {}
    for row in rows:
        if row["level"] == CITED:
            others.setdefault(row["paper_dataset"], []).append(row)
        else:
            place = row.get("dataset") or f"{row['counted_for']}, input {row['input_size']}"
            key = (row["campaign"], place, row.get("data_kind") or "paper")
            ours.setdefault(key, []).append(row)
    found = [_ours(table, *key, group) for key, group in ours.items()]
    return found + [_cited(table, dataset, group) for dataset, group in sorted(others.items())]


def _ours(table: Table, campaigns: tuple[str, ...], dataset: str, kind: str, rows: list[Row]) -> View:
    kept = [column for column in table.columns if not column.cited and column.kind in (None, kind)]
    kept = [c for c in kept if not (c.filled and all(row.get(c.key) is None for row in rows))]
    columns = sorted((column for column in kept if column.main), key=lambda column: column.main)
    if table.metrics and kind == "paper":  # beside other data's numbers a paper's would invite comparison
        head = PAPER_HEADS.get(table.name, PAPER_HEAD)
        columns.append(Column("", head=head, shown=lambda row: _paper_text(table, row)))
    levels = " / ".join(sorted({row["level"] for row in rows}))
    said = {
        "stand-in": f"A stand-in for {STAND_IN_FOR.get(table.name, OWN_DATA)}",
        "other": "Other data than the papers'",
    }
    warning = [f"{said[kind]}: not comparable with any paper's number."] if kind in said else []
    several = "s" if len(campaigns) > 1 else ""
    return View(
        title=f"{dataset} · campaign{several} {', '.join(campaigns)}{ASIDE[kind]}",
        note=" ".join([*warning, table.note or f"Level: {levels}."]),
        kind="ours",
        data_kind=kind,
        columns=tuple(columns),
        rows=tuple(rows),
        details=tuple(sorted((column for column in kept if column.origin), key=lambda column: column.origin)),
    )


def _paper_text(table: Table, row: Row) -> str:
    where = f"({row['paper_dataset']}, W/A {row['paper_wa']}, cited)"
    if table.name == "search":
        named = {"paper_accuracy": "retrained top-1", "paper_search_cost": "search cost, no unit given,"}
        found = [f"{words} {row[key]:g}" for key, words in named.items() if row.get(key)]
        return f"{'; '.join(found)} {where}" if found else DASH
    keys = [f"paper_{metric.paper}" for metric in table.metrics if metric.paper]
    value = next((row[key] for key in keys if row.get(key)), None)
    return DASH if value is None else f"{row['paper_name']}: {value:g} {where}"


def _cited(table: Table, dataset: str, rows: list[Row]) -> View:
    """The literature's rows of one data set, with those of its numbers that any of them has."""
    by_key = {column.key: column for column in table.columns}
    used = [c for c in table.columns if c.cited and c.main and any(row[c.key] is not None for row in rows)]
    columns = (
        Column("name", head="network"),
        by_key["paper_wa"],
        *(
            Column(c.key, head=c.head, digits=0, shown=lambda row, key=c.key: _as_printed(row[key]))  # type: ignore[misc]
            for c in sorted(used, key=lambda c: c.main)
        ),
        Column("source", head="source"),
        Column("note", head="note"),
    )
    named = references().items()
    short = [f"{name}: {meaning}." for name, meaning in named if any(name in row["source"] for row in rows)]
    note = " ".join(["Printed by others, nothing was run here.", *short])
    return View(f"{dataset} · cited", note, "cited", "paper", columns, tuple(rows))


def _as_printed(value: Any) -> str:
    return DASH if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,g}"
