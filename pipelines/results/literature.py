"""The literature's numbers: one data file, checked when it is read."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from search.errors import InputError
from search.settings import Settings

FILE = Path(__file__).parent.parent / "literature.yaml"
Printed = int | float | None
"""A number as printed, or none."""


class Cited(Settings):
    """A row of literature.yaml: what one source prints of one network.

    Attributes:
        method: The suite's name of the same method or network, where it has one.
        primary: Whether it is the row of its method and task that stands beside ours.
        same: The id of another row of the same network, by another source.
        error, error5: Top-1 and top-5 error in percent, where the source prints no accuracy.
    """

    id: str
    table: Literal["search", "classification", "detection", "reid", "cost"]
    name: str
    method: str | None = None
    primary: bool = False
    task: str
    dataset: str
    wa: Literal["1/1", "1/32", "32/32", "1/?", "1/1 + 1/32"]
    source: str
    status: Literal["cited"]
    note: str | None = None
    same: str | None = None
    error: Printed = None
    error5: Printed = None
    accuracy: Printed = None
    top5: Printed = None
    map50: Printed = None
    map: Printed = None
    rank1: Printed = None
    search_cost: Printed = None
    memory_MB: Printed = None
    mbit: Printed = None
    params: Printed = None
    bops_M: Printed = None
    flops_M: Printed = None
    ops_M: Printed = None
    w1a32_macs_M: Printed = None
    ops_strict_M: Printed = None
    ops_generous_M: Printed = None


DISPUTED = {"accuracy": "top-1 %", "top5": "top-5 %", "search_cost": "search cost"}
"""Numbers that sources may print differently of one network."""


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
    """The cited rows in file order, each with its source written out and with what other sources print instead.

    Raises:
        InputError: Naming the row that has no source, another status than cited, or an unknown key.
    """
    data = _data(path)
    rows = [_row(row, data["sources"], f"{path.name}, row {row.get('id')!r}") for row in data["rows"]]
    identifiers = [row["id"] for row in rows]
    for row in rows:
        if identifiers.count(row["id"]) > 1:
            raise InputError(f"the id {row['id']!r} is used twice", where=path)
        if row.get("same", row["id"]) not in identifiers:
            raise InputError(f"{row['id']!r} is the same as {row['same']!r}, which is no row", where=path)
    return tuple(_with_conflicts(row, rows) for row in rows)


def _row(row: dict[str, Any], sources: dict[str, str], where: str) -> dict[str, Any]:
    try:
        found = Cited.model_validate(row).model_dump(exclude_defaults=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"][:1]))
        raise InputError(f"{key} is {first['input']!r:.60}", where=where, allowed=first["msg"]) from None
    if found["source"] not in sources:
        raise InputError(f"source {found['source']!r} is not listed", where=where, allowed=", ".join(sources))
    notes = [found["note"]] if "note" in found else []
    for error_key, key in (("error", "accuracy"), ("error5", "top5")):
        if error_key in found:
            found[key] = round(100 - found[error_key], 2)
            notes.append(f"{DISPUTED[key]} printed as an error of {found[error_key]:g}")
    found |= {"note": "; ".join(notes)} if notes else {}
    return {**found, "source": sources[found["source"]]}


def _with_conflicts(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with a note on every number of it that another source prints differently."""
    group = row.get("same", row["id"])
    others = [other for other in rows if other.get("same", other["id"]) == group and other is not row]
    words = [
        f"{title} {other[key]:g} in {other['source']}"
        for key, title in DISPUTED.items()
        for other in others
        if key in row and key in other and row[key] != other[key]
    ]
    notes = [row["note"]] if "note" in row else []
    return row | ({"note": "; ".join([*notes, *dict.fromkeys(words)])} if words else {})


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
