"""The literature's numbers: one data file, checked when it is read."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from search.errors import InputError

FILE = Path(__file__).parent.parent / "literature.yaml"
KNOWN = frozenset(
    (
        "id",
        "table",
        "name",
        "method",
        "primary",
        "task",
        "dataset",
        "wa",
        "source",
        "status",
        "note",
        "search_cost",
        "memory_MB",
        "mbit",
        "params",
        "accuracy",
        "top5",
        "map50",
        "map",
        "rank1",
        "bops_M",
        "flops_M",
        "ops_M",
        "w1a32_macs_M",
        "ops_strict_M",
        "ops_generous_M",
    )
)
REQUIRED = ("id", "table", "name", "task", "dataset", "wa", "source", "status")
WIDTHS = ("1/1", "1/32", "32/32", "1/?", "1/1 + 1/32")


@cache
def _data(path: Path = FILE) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def references() -> dict[str, str]:
    """What the short names in the column ``source`` stand for."""
    return dict(_data()["references"])


def dataset_names() -> dict[str, str]:
    """The literature's name of every data set that papers measured on, by our name of it."""
    return dict(_data()["datasets"])


@cache
def literature(path: Path = FILE) -> tuple[dict[str, Any], ...]:
    """The cited rows in file order, each with its source written out.

    Raises:
        InputError: Naming the row that has no source, another status than cited, or an unknown key.
    """
    data = _data(path)
    rows = []
    for row in data["rows"]:
        _check(row, data["sources"], f"{path.name}, row {row.get('id')!r}")
        rows.append({**row, "source": data["sources"][row["source"]]})
    identifiers = [row["id"] for row in rows]
    for identifier in identifiers:
        if identifiers.count(identifier) > 1:
            raise InputError(f"the id {identifier!r} is used twice", where=path)
    return tuple(rows)


def _check(row: dict[str, Any], sources: dict[str, str], where: str) -> None:
    for key in REQUIRED:
        if key not in row:
            raise InputError(f"the key {key!r} is missing", where=where)
    for key in row:
        if key not in KNOWN:
            raise InputError(f"unknown key {key!r}", where=where, allowed=", ".join(sorted(KNOWN)))
    if row["status"] != "cited":
        raise InputError(f"status {row['status']!r}", where=where, allowed="cited")
    if row["source"] not in sources:
        raise InputError(f"source {row['source']!r} is not listed", where=where, allowed=", ".join(sources))
    if row["wa"] not in WIDTHS:
        raise InputError(f"wa {row['wa']!r}", where=where, allowed=", ".join(WIDTHS))


def cited(table: str) -> list[dict[str, Any]]:
    """The cited rows of one result table."""
    return [row for row in literature() if row["table"] == table]


def counterpart(
    table: str, family: str, task: str | None, precision: str, dataset: str | None = None
) -> dict[str, Any] | None:
    """The literature's row to print beside ours, or None.

    Args:
        table: The result table.
        family: Our method or network.
        task: What ours was run for; None where every task of the literature's row will do.
        precision: Ours, ``1bit`` or ``real``: the literature's weights have the same.
        dataset: The literature's name of the data set ours was measured on; None: any.
    """
    for row in cited(table):
        same = row.get("primary") and row.get("method") == family and task in (None, row["task"])
        if same and (precision == "real") == (row["wa"] == "32/32") and dataset in (None, row["dataset"]):
            return row
    return None
