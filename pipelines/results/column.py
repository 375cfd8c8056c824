"""A column of a result table, declared once: CSV file, README and every table that is read are made from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.results.metrics import METRICS, Metric

Row = dict[str, Any]
"""Values by column; several values of one cell are a tuple until they are rendered."""
DASH = "–"
DATA_KINDS = {
    "paper": ("", "on the papers' own data set"),
    "other": ("other_", "on other data than the papers'"),
    "stand-in": ("stand_in_", "on a stand-in data set"),
}
"""What numbers may be measured on: the prefix of their columns, and in words."""
DATA_MARKS = {"paper": "", "other": " (other data)", "stand-in": " (stand-in)"}
"""What stands behind a data set's name."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: Its name in the CSV file; empty: only in the tables that are read.
        doc: What it is, for results/README.md.
        value: Its value for a group of runs; None: empty in rows of ours.
        head: Its heading in the tables that are read.
        main, origin: Its place in the table that is read first and in that of where each number comes from, by
            rising number; 0: not there.
        digits: Of a number; None: words.
        join, item: How several values of a cell are written.
        shown: How the cell is read, where not by the rules above.
        kind: Only in sections of this kind of data.
        filled: Only where a row has a value.
        cited: The key of literature.yaml that fills it in rows of the literature.
    """

    key: str
    doc: str = ""
    value: Callable[[Any], Any] | None = None
    head: str = ""
    main: float = 0
    origin: float = 0
    digits: int | None = None
    join: str = " "
    item: str = "{}"
    shown: Callable[[Row], str] | None = None
    kind: str | None = None
    filled: bool = False
    cited: str | None = None

    @property
    def numeric(self) -> bool:
        """Whether it stands to the right."""
        return self.digits is not None

    def cell(self, row: Row) -> Any:
        """The value for a CSV file: several are one text."""
        value = row.get(self.key)
        return self.join.join(map(self.item.format, value)) if isinstance(value, tuple) else value

    def text(self, row: Row) -> str:
        """The cell as it is read."""
        if self.shown is not None:
            return self.shown(row)
        value = self.cell(row)
        return number(value, self.digits) if self.digits is not None else str(value or DASH)


@dataclass(frozen=True)
class Table:
    """A result table.

    Attributes:
        name: File name without suffix.
        title: Heading.
        stage: The stage whose runs fill it.
        about: One sentence for the reader.
        columns: All its columns, in the order of the CSV file.
        metrics: Its measured values, the first one decides the order of the rows.
        note: What every section of ours says.
    """

    name: str
    title: str
    stage: str
    about: str
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...] = field(default=())
    note: str = ""

    @property
    def docs(self) -> dict[str, str]:
        """Every column of its CSV file, in order, with its explanation."""
        return {column.key: column.doc for column in self.columns if column.key}

    def rendered(self, rows: Sequence[Row]) -> list[Row]:
        """Rows as they stand in the CSV file."""
        return [{column.key: column.cell(row) for column in self.columns if column.key} for row in rows]


def number(value: Any, digits: int | None = 2) -> str:
    """A number for reading: thousands apart, a dash where there is none."""
    if value is None or value == "":
        return DASH
    if isinstance(value, str):
        return value
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def name_of(family: str, form: str | None, precision: str) -> str:
    """A network's name with its form and precision where they are not the usual ones."""
    extra = [form] if form not in (None, "paper") else []
    extra += ["real-valued"] if precision == "real" else []
    return f"{family} ({', '.join(map(str, extra))})" if extra else family


def label(row: Row) -> str:
    """The same of a row."""
    return name_of(str(row["name"]), row.get("form"), str(row.get("precision")))


def own_column(row: Row, key: str) -> str:
    """The column that holds a row's own value: its prefix says what data it was measured on."""
    return f"{DATA_KINDS[row['data_kind']][0]}{key}"


def with_std(key: str) -> Callable[[Row], str]:
    """Mean and deviation of a column in one cell."""

    def text(row: Row) -> str:
        mean, std = row.get(key), row.get(f"{key}_std")
        return number(mean) if std is None else f"{number(mean)} ± {number(std)}"

    return text


def measured(metric: Metric, place: float) -> tuple[Column, ...]:
    """The columns of a measured share for each kind of data: mean and deviation, in percent, read as one.

    Args:
        metric: What was measured.
        place: Where it is read.
    """
    found: list[Column] = []
    for kind, (prefix, where) in DATA_KINDS.items():
        key = prefix + metric.key

        def of(what: str, kind: str = kind) -> Callable[[Any], Any]:
            return lambda group: group.percent(metric.key, what) if group.first.data_kind == kind else None

        mean = f"{metric.doc}; mean over all runs, {where}"
        std = "sample standard deviation over the runs; empty for one run"
        # fmt: off
        found += [
            Column(key, mean, of("mean"), metric.head, place, digits=2, shown=with_std(key), kind=kind,
                filled=True),
            Column(f"{key}_std", std, of("std")),
        ]
        # fmt: on
    return tuple(found)


def chosen(names: str) -> tuple[Metric, ...]:
    """Metrics by their names, in order."""
    return tuple(METRICS[name] for name in names.split())
