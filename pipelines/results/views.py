"""Tables for reading: sections by data set, so that numbers of different data sets never share a column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.results.columns import COSTS, DATA_KINDS, DETECTOR_COSTS, Metric, TableSpec
from pipelines.results.level import CITED
from pipelines.results.literature import references

Row = dict[str, Any]
STAND_IN_FOR = {
    "classification": "ImageNet",
    "detection": "PASCAL VOC and COCO",
    "reid": "Market-1501",
}
PAPER_HEAD = "paper, on the same data set"
PAPER_HEADS = {"search": "paper, its found network retrained on its own data"}
"""Heading of the literature's numbers beside ours."""
ASIDE = {"paper": "", "other": " · other data", "stand-in": " · stand-in"}
"""What stands behind a data set in a heading."""
COST_HEADS = {"backbone_ops_strict_M": "backbone OPs strict M", "backbone_mbit": "backbone Mbit"}
DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of a view: its heading, the text of a row's cell, and whether it is a number."""

    head: str
    text: Callable[[Row], str]
    numeric: bool = False


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


def views(spec: TableSpec, rows: list[Row]) -> list[View]:
    """The sections of a table: one a campaign and data set of ours, then one a cited data set."""
    ours: dict[tuple[str, str, str], list[Row]] = {}
    others: dict[str, list[Row]] = {}
    for row in rows:
        if row["level"] == CITED:
            others.setdefault(row["paper_dataset"], []).append(row)
        else:
            key = (
                row["profile"],
                row.get("dataset") or f"{row['counted_for']}, input {row['input_size']}",
                row.get("data_kind") or "paper",
            )
            ours.setdefault(key, []).append(row)
    found = [_ours(spec, key, group) for key, group in ours.items()]
    return found + [_cited(spec, dataset, group) for dataset, group in sorted(others.items())]


def number(value: Any, digits: int = 2) -> str:
    """A number for reading: thousands apart, a dash where there is none."""
    if value is None or value == "":
        return DASH
    if isinstance(value, str):
        return value
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def label(row: Row) -> str:
    """The name with its form and precision where they are not the usual ones."""
    extra = [row["form"]] if row.get("form") not in (None, "paper") else []
    if row.get("precision") == "real":
        extra.append("real-valued")
    return f"{row['name']} ({', '.join(extra)})" if extra else str(row["name"])


def _plain(head: str, key: str, digits: int = 2) -> Column:
    return Column(head, lambda row: number(row.get(key), digits), numeric=True)


def _words(head: str, key: str) -> Column:
    return Column(head, lambda row: str(row[key]) if row.get(key) not in (None, "") else DASH)


def _mean_std(metric: Metric, prefix: str) -> Column:
    def text(row: Row) -> str:
        mean, std = row.get(prefix + metric.key), row.get(f"{prefix}{metric.key}_std")
        return number(mean) if std is None else f"{number(mean)} ± {number(std)}"

    return Column(metric.head, text, numeric=True)


def runs(row: Row) -> str:
    """How many runs a row's value is the mean of, and of how many searches where its network was found."""
    searches = row.get("searches")
    words = f" ({searches} search{'es' if int(searches) > 1 else ''})" if searches else ""
    return f"{row['n']}{words}"


def _ours(spec: TableSpec, key: tuple[str, str, str], rows: list[Row]) -> View:
    profile, dataset, kind = key
    place = f"{dataset} · profile{'s' if ', ' in profile else ''} {profile}{ASIDE[kind]}"
    if spec.own:
        return _compared(spec, place, kind, rows)
    prefix = DATA_KINDS[kind][0]
    metrics = [m for m in spec.metrics if any(row.get(prefix + m.key) is not None for row in rows)]
    detector = [_words("detector", "detector")] if spec.stage == "detect" else []
    widths = _words("W/A of the backbone" if detector else "W/A", "wa")
    middle = [_mean_std(metric, prefix) for metric in metrics]
    counted = _plain("n", "n") if spec.stage in ("search", "cost") else Column("n", runs, numeric=True)
    columns = [Column("network", label), *detector, widths, *middle, counted]
    columns += _middle(spec) + [_words("level", "level")]
    if spec.metrics and kind == "paper":  # beside other data's numbers a paper's would invite comparison
        columns.append(Column(PAPER_HEADS.get(spec.name, PAPER_HEAD), lambda row: _paper_text(spec, row)))
    levels = sorted({row["level"] for row in rows})
    return View(
        title=place,
        note=" ".join([*_warning(spec, kind), f"Level: {' / '.join(levels)}."]),
        kind="ours",
        data_kind=kind,
        columns=tuple(columns),
        rows=tuple(rows),
        details=_details(spec),
    )


def _warning(spec: TableSpec, kind: str) -> list[str]:
    meant = STAND_IN_FOR.get(spec.name, "the paper's data set")
    said = {"stand-in": f"A stand-in for {meant}", "other": "Other data than the papers'"}
    return [f"{said[kind]}: not comparable with any paper's number."] if kind in said else []


def _compared(spec: TableSpec, title: str, kind: str, rows: list[Row]) -> View:
    prefix = DATA_KINDS[kind][0]
    columns = (
        Column("network", label),
        _mean_std(Metric("accuracy", "top-1 %", ""), prefix),
        _plain("searches", "searches"),
        _words("against", "against"),
        Column("difference", lambda row: _signed(row[f"{prefix}difference"]), numeric=True),
        Column("interval", lambda row: _interval(row, f"{prefix}difference"), numeric=True),
        _plain("pairs", "pairs"),
        _plain("p, corrected", "p_holm", 4),
        _words("level", "level"),
    )
    note = [*_warning(spec, kind), "Differences in percentage points, with their bootstrap intervals."]
    details = (Column("network", label), _words("top-1 %, every search", "values"), _plain("runs", "runs"))
    more = (_words("variant", "variant"), _words("settings", "settings"))
    return View(title, " ".join(note), "ours", kind, columns, tuple(rows), details + more)


def _signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.2f}"


def _interval(row: Row, key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return DASH if low is None else f"{_signed(low)} to {_signed(high)}"


def _middle(spec: TableSpec) -> list[Column]:
    if spec.name == "search":
        return [
            _plain("epochs", "epochs", 0),
            _plain("images", "images_seen", 0),
            _plain("seconds", "seconds", 1),
            _plain("peak MiB", "peak_memory_mib", 0),
            _words("skips", "skip_connects"),
            _words("depth", "depth"),
            _words("param.-free", "parameter_free_share"),
            _words("collapsed", "collapsed"),
        ]
    costs = [_plain(head, key) for key, (head, _) in COSTS.items()]
    if spec.name == "cost":
        return [*costs, _plain("parameters", "params", 0)]
    if spec.stage == "detect":
        costs = [_plain(f"detector {head}", key) for key, (head, _) in COSTS.items()]
        costs += [_plain(COST_HEADS[key], key) for key in DETECTOR_COSTS]
    return [*costs, _plain("search s", "search_seconds", 0)]


def _details(spec: TableSpec) -> tuple[Column, ...]:
    values = [_words(f"{spec.metrics[0].head}, every run", "values")] if spec.metrics else []
    search = [_plain("search images", "search_images", 0), _words("search device", "search_device")]
    images = [
        _plain("training images", "train_images", 0),
        _plain("test images", "test_images", 0),
        _plain("epochs", "epochs", 0),
        _plain("seconds", "seconds", 0),
    ]
    return (
        Column("network", label),
        _words("seeds", "seeds"),
        *values,
        *(
            images
            if spec.stage in ("retrain", "detect", "reid")
            else images[:2]
            if spec.stage == "search"
            else []
        ),
        *(search if spec.stage in ("retrain", "detect", "reid") else []),
        *([_words("read back", "read_back")] if spec.stage == "retrain" else []),
        _words("genotype", "genotype"),
        _words("settings", "settings"),
        _words("hardware", "hardware"),
        _words("commit", "commit"),
    )


def _paper_text(spec: TableSpec, row: Row) -> str:
    where = f"({row['paper_dataset']}, W/A {row['paper_wa']}, cited)"
    if spec.name == "search":
        named = {"paper_accuracy": "retrained top-1", "paper_search_cost": "search cost, no unit given,"}
        found = [f"{words} {row[key]:g}" for key, words in named.items() if row.get(key)]
        return f"{'; '.join(found)} {where}" if found else DASH
    keys = [f"paper_{metric.paper}" for metric in spec.metrics if metric.paper]
    value = next((row[key] for key in keys if row.get(key)), None)
    return DASH if value is None else f"{row['paper_name']}: {value:g} {where}"


def _cited(spec: TableSpec, dataset: str, rows: list[Row]) -> View:
    own = {f"paper_{m.paper}": m.head for m in spec.metrics if m.paper}
    heads = (own or {"paper_accuracy": "top-1 %"}) | {
        "paper_top5": "top-5 %",
        "paper_bops_M": "BOPs M",
        "paper_w1a32_macs_M": "W1A32 MACs M",
        "paper_flops_M": "FLOPs M",
        "paper_ops_M": "OPs M (source's convention)",
        "paper_ops_strict_M": "OPs strict M",
        "paper_ops_generous_M": "OPs generous M",
        "paper_mbit": "Mbit",
        "paper_memory_MB": "MB",
        "paper_search_cost": "search cost (no unit given)",
    }
    used = {key: head for key, head in heads.items() if any(row.get(key) is not None for row in rows)}
    columns = (
        Column("network", lambda row: str(row["name"])),
        _words("W/A", "paper_wa"),
        *(_printed(head, key) for key, head in used.items()),
        _words("source", "source"),
        _words("note", "note"),
    )
    short = [
        f"{name}: {meaning}."
        for name, meaning in references().items()
        if any(name in row["source"] for row in rows)
    ]
    note = " ".join(["Printed by others, nothing was run here.", *short])
    return View(f"{dataset} · cited", note, "cited", "paper", columns, tuple(rows))


def _printed(head: str, key: str) -> Column:
    return Column(head, lambda row: _as_printed(row.get(key)), numeric=True)


def _as_printed(value: Any) -> str:
    return DASH if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,g}"
