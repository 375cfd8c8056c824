"""Rows of the result tables: runs grouped by what they measured, joined with the literature."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pipelines.results.columns import COSTS, DATA_KINDS, TableSpec, columns
from pipelines.results.level import CITED, level
from pipelines.results.literature import cited, counterpart, dataset_names
from pipelines.results.origin import commit, hardware
from pipelines.results.read_back import read_back
from pipelines.results.records import Library, Record
from search.genotype import collapse

Row = dict[str, Any]


def table_rows(spec: TableSpec, library: Library) -> list[Row]:
    """Our rows (by profile, data set, precision, then falling value), then the cited ones in file order."""
    ours = [_row(spec, group, library) for group in groups(_records(spec, library))]
    ours.sort(key=lambda row: _order(spec, row))
    return ours + [_cited_row(spec, row) for row in cited(spec.name)]


def _records(spec: TableSpec, library: Library) -> list[Record]:
    """The runs of a table; a search that several campaigns share is one, under the names of all of them."""
    if spec.stage != "search":
        return library.of(spec.stage)
    return [replace(record, profile=", ".join(shared)) for record, shared in library.distinct("search")]


def groups(records: Iterable[Record]) -> list[list[Record]]:
    """Runs that differ in nothing but their seeds, sorted by search seed and seed."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        found.setdefault(_experiment(record), []).append(record)
    return [sorted(group, key=lambda r: (r.search_seed or 0, r.seed)) for _, group in sorted(found.items())]


def _experiment(record: Record) -> tuple[str, ...]:
    dataset = record.dataset
    where = (dataset.get("name"), dataset.get("sha256"), dataset.get("train_images"))
    what = (record.family, record.run["precision"], record.form, record.settings)
    return tuple(str(part) for part in (record.profile, record.run["task"], *where, *what))


def _order(spec: TableSpec, row: Row) -> tuple[Any, ...]:
    value: float = 0.0
    if spec.metrics:
        value = row[own_column(row, spec.metrics[0].key)] or 0.0
    where = row["counted_for"] if spec.stage == "cost" else row["dataset"]
    return (row["profile"], where, row["precision"], -value, row["name"], row["settings"])


def own_column(row: Row, key: str) -> str:
    """The column that holds a row's own value: its prefix says what data it was measured on."""
    return f"{DATA_KINDS[row['data_kind']][0]}{key}"


def _row(spec: TableSpec, group: list[Record], library: Library) -> Row:
    first = group[0]
    row: Row = dict.fromkeys(columns(spec))
    row |= {
        "level": level(group, library),
        "name": first.label,
        "variant": first.variant,
        "precision": first.run["precision"],
        "form": first.form,
        "profile": first.profile,
        "n": len(group),
        "searches": len({r.search_seed for r in group}) if first.method else None,
        "seeds": " ".join(filter(None, map(_seed, group))),
        "genotype": " ".join(
            unique(str(r.run["genotype_hash"])[:8] for r in group if r.run.get("genotype_hash"))
        ),
        "hardware": "; ".join(unique(hardware(r.provenance) for r in group)),
        "commit": " ".join(unique(commit(r.provenance) for r in group)),
        "settings": first.settings,
    }
    row |= _data(first) if spec.stage != "cost" else _counted(group)
    if spec.stage == "detect":
        row |= _detector(group)
    row |= _measured(spec, group) | _costs(group)
    row |= {key: _mean([r.metrics.get(key) for r in group], 1) for key in spec.extra if key in first.metrics}
    if spec.stage == "search":
        row |= _diagnosis(group)
    elif spec.stage != "cost":
        row |= _search_cost(group, library)
    if spec.stage == "retrain":
        row["read_back"] = read_back(group, library)
    return row | _literature(spec, first)


def _seed(record: Record) -> str:
    if record.stage == "cost":
        return "" if record.search_seed is None else str(record.search_seed)
    if record.stage == "search" or record.search_seed is None:
        return str(record.seed)
    return f"{record.search_seed}:{record.seed}"


def unique(values: Iterable[str]) -> list[str]:
    """The values without repetitions, in order of first appearance."""
    return list(dict.fromkeys(values))


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(statistics.fmean(known), digits or None) if known else None


def _literature(spec: TableSpec, record: Record) -> Row:
    """The literature's columns beside a row of ours: none unless both were measured on the same data set.

    The numbers beside a search are those of the network that the method found, retrained, with a note that says so.
    """
    what = (record.family, None if spec.stage == "search" else record.run["task"], record.run["precision"])
    if spec.stage == "cost":
        paper = counterpart(spec.name, *what)
    elif record.data_kind != "paper":
        return {}
    elif spec.stage == "search":
        paper = counterpart(spec.name, *what)
    else:
        paper = counterpart(spec.name, *what, dataset_names()[record.dataset["name"]])
    if paper is None:
        return {}
    row = _paper(spec, paper)
    if spec.stage == "search":
        row["note"] = "; ".join(
            filter(None, (f"accuracy after retraining on {paper['dataset']}", row["note"]))
        )
    return row


def _data(record: Record) -> Row:
    data = record.dataset
    return {
        "dataset": data["name"],
        "data_kind": record.data_kind,
        "train_images": data.get("train_images"),
        "test_images": data.get("test_images", data.get("validation_images")),
    }


def _measured(spec: TableSpec, group: list[Record]) -> Row:
    prefix = DATA_KINDS[group[0].data_kind][0]
    row: Row = {}
    for metric in spec.metrics:
        values = [100 * float(r.metrics[metric.key]) for r in group if metric.key in r.metrics]
        if values:
            row[prefix + metric.key] = round(statistics.fmean(values), 3)
            row[f"{prefix}{metric.key}_std"] = round(statistics.stdev(values), 3) if len(values) > 1 else None
    if spec.metrics:
        row["values"] = " ".join(f"{100 * float(r.metrics[spec.metrics[0].key]):.2f}" for r in group)
    return row


def _costs(group: list[Record]) -> Row:
    """Mean costs; those of a detection are the whole detector's, but W/A is the backbone's."""
    counts = [record.cost for record in group if record.cost]
    real = group[0].run["precision"] == "real"
    mixed = any(count["w1a32_macs"] for count in counts)
    if group[0].stage == "detect":
        counts = [count["detector"] for count in counts if "detector" in count]
    totals = [totals_of(count) for count in counts]
    row: Row = {key: _mean([total[key] for total in totals], 6) for key in COSTS}
    return row | {"wa": "32/32" if real else "1/1 + 1/32" if mixed else "1/1"}


def _detector(group: list[Record]) -> Row:
    """What a detection's row says of its detector and of the backbone in it."""
    settings = group[0].params.get("detection", {})
    backbones = [totals_of(record.cost) for record in group if record.cost]
    has_neck = settings.get("detector") != "ssd"
    binary = settings.get("binary_neck") and has_neck and group[0].run["precision"] == "1bit"
    return {
        "detector": settings.get("detector"),
        "binary_neck": "yes" if binary else "no",
        **{
            f"backbone_{key}": _mean([total[key] for total in backbones], 6)
            for key in ("ops_strict_M", "mbit")
        },
    }


def totals_of(cost: dict[str, Any]) -> dict[str, float]:
    """The totals of a cost.json in the units of the tables (millions, Mbit)."""
    million = {
        "bops_M": "bops",
        "w1a32_macs_M": "w1a32_macs",
        "flops_M": "flops",
        "ops_strict_M": "ops_strict",
        "ops_generous_M": "ops_generous",
    }
    return {key: float(cost[name]) / 1e6 for key, name in million.items()} | {"mbit": float(cost["mbit"])}


def _counted(group: list[Record]) -> Row:
    costs = [record.cost or {} for record in group]
    size = costs[0].get("input")
    sides = size if isinstance(size, list) else [size, size]
    return {
        "counted_for": group[0].run["task"],
        "params": _mean([cost.get("params") for cost in costs], 0),
        "input_size": " x ".join(str(side) for side in sides) if size else None,
    }


def _diagnosis(group: list[Record]) -> Row:
    found = [collapse(r.genotype) for r in group if r.genotype]
    if not found:
        return {}
    return {
        "skip_connects": " ".join(str(one.skip_connects) for one in found),
        "depth": " ".join(str(one.depth) for one in found),
        "parameter_free_share": " ".join(f"{one.parameter_free_share:.2f}" for one in found),
        "collapsed": f"{sum(one.collapsed for one in found)} of {len(found)}",
    }


def _search_cost(group: list[Record], library: Library) -> Row:
    searches = {id(found): found for r in group if r.method and (found := library.search_of(r))}
    rows = list(searches.values())
    return {
        "search_seconds": _mean([r.metrics["seconds"] for r in rows], 1),
        "search_images": _mean([r.metrics["images_seen"] for r in rows], 0),
        "search_device": "; ".join(unique(hardware(r.provenance) for r in rows)) or None,
    }


def _paper(spec: TableSpec, source: Row) -> Row:
    names = {
        "paper_name": "name",
        "paper_dataset": "dataset",
        "paper_wa": "wa",
        "source": "source",
        "note": "note",
    }
    known = columns(spec)
    row = {key: source.get(name) for key, name in names.items()}
    return row | {f"paper_{key}": value for key, value in source.items() if f"paper_{key}" in known}


def _cited_row(spec: TableSpec, source: Row) -> Row:
    named = {"level": CITED, "name": source["name"], "wa": None}
    return dict.fromkeys(columns(spec)) | _paper(spec, source) | named
