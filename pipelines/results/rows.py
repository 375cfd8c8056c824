"""Rows of the result tables: ours, one a group of runs, joined with the literature's."""

from __future__ import annotations

from pipelines.results.column import Row, Table, own_column
from pipelines.results.groups import Group, groups
from pipelines.results.level import CITED
from pipelines.results.literature import cited
from pipelines.results.records import Library


def table_rows(table: Table, library: Library) -> list[Row]:
    """Our rows (by campaign, data set, precision, then from the best value on), then the cited ones in file order."""
    ours = [_row(table, group) for group in _groups(table, library)]
    ours.sort(key=lambda row: _order(table, row))
    return ours + [
        {c.key: source.get(c.cited) if c.cited else None for c in table.columns}
        | {"level": CITED, "name": source["name"]}
        for source in cited(table.name)
    ]


def _groups(table: Table, library: Library) -> list[Group]:
    """The runs of a table; a search that several campaigns share is one, under the names of all of them."""
    if table.stage != "search":
        found = groups(library.of(table.stage))
        return [Group(table.name, runs, (runs[0].campaign,), library) for runs in found]
    shared = {run.identity: campaigns for run, campaigns in library.distinct("search")}
    once = groups((run for run, _ in library.distinct("search")), lambda run: ", ".join(shared[run.identity]))
    return [Group(table.name, runs, shared[runs[0].identity], library) for runs in once]


def _row(table: Table, group: Group) -> Row:
    return {
        column.key: column.value(group)
        if column.value
        else group.paper.get(column.cited)
        if column.cited
        else None
        for column in table.columns
    }


def _order(table: Table, row: Row) -> tuple[object, ...]:
    value = 0.0
    if table.metrics:
        value = row[own_column(row, table.metrics[0].key)] or 0.0
        value *= -1 if table.metrics[0].better == "up" else 1
    where = row["counted_for"] if table.stage == "cost" else row["dataset"]
    return (", ".join(row["campaign"]), where, row["precision"], value, row["name"], row["settings"])
