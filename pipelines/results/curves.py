"""Curves over time: the mean and the spread of a network's runs, epoch by epoch, for figures and for DVC's plots."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.results.campaigns import searches_once
from pipelines.results.claims import dataset_label
from pipelines.results.groups import groups
from pipelines.results.records import Library
from pipelines.results.run import Run

Row = dict[str, Any]
SHARES = ("accuracy_parent", "accuracy", "voc_map50", "coco_map50", "map", "rank1")
"""Columns of a history that hold shares in [0, 1]; curves give them in percent."""
DIGITS = 4


@dataclass(frozen=True)
class Kind:
    """The curves of a stage.

    Attributes:
        name: File name without suffix in results/curves/.
        stage: The stage whose histories they come from.
        title: For the reader.
        time: Column of the history with the time.
        first: What the time of the first row is counted from; curves count from 1.
        values: Column of the history and what it is, in the order of drawing.
    """

    name: str
    stage: str
    title: str
    time: str
    first: int
    values: dict[str, str]


LOSS = "training loss"
KINDS = (
    Kind(
        "search",
        "search",
        "The search over time",
        "step",
        0,
        {
            "accuracy": "validation accuracy % of the Child, or of the drawn network where whole networks are drawn",
            "accuracy_parent": "validation accuracy % of its real-valued Parent",
        },
    ),
    Kind(
        "classification",
        "retrain",
        "Training",
        "epoch",
        0,
        {"train_loss": LOSS, "accuracy": "test accuracy %"},
    ),
    Kind(
        "detection",
        "detect",
        "Training",
        "epoch",
        1,
        {"loss": LOSS, "voc_map50": "VOC mAP@0.5 %", "coco_map50": "COCO AP50 %"},
    ),
    Kind("reid", "reid", "Training", "epoch", 1, {"loss": LOSS, "map": "mAP %", "rank1": "rank-1 %"}),
)


@dataclass(frozen=True)
class Point:
    """The runs of a network at one time: ``mean``, ``std`` (None for one run) and ``n`` by column."""

    time: int
    mean: dict[str, float]
    std: dict[str, float | None]
    n: int


@dataclass(frozen=True)
class Curve:
    """A network's runs over time, those that differ in nothing but their seeds.

    Attributes:
        first: The first of the runs.
        key: Its method, variant or network as a file name, unique within campaign, task, data set and precision.
        network: The same for the reader, with form and precision where they are not the usual ones.
        n: The number of runs.
        points: By time, counted from 1.
    """

    first: Run
    key: str
    network: str
    n: int
    points: tuple[Point, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        """Campaign, task and data set (marked where it is a stand-in): what one figure shows."""
        return _place(self.first)

    @property
    def real(self) -> bool:
        """Whether it is a real-valued twin."""
        return bool(self.first.precision == "real")

    def line(self, column: str) -> tuple[list[int], list[float], list[float]]:
        """Times, means and standard deviations (0 for one run) of a column, where it has a value."""
        known = [point for point in self.points if column in point.mean]
        return (
            [point.time for point in known],
            [point.mean[column] for point in known],
            [point.std[column] or 0.0 for point in known],
        )


def curves(kind: Kind, library: Library) -> list[Curve]:
    """The curves of one stage's runs by campaign, task, data set and name, the 1-bit ones first."""
    found = [group for group in groups(library.of(kind.stage)) if any(record.history for record in group)]
    drawn = [_curve(kind, group, *names) for group, names in zip(found, _names(found), strict=True)]
    with_points = [curve for curve in drawn if curve.points]
    return sorted(with_points, key=lambda curve: (curve.place, curve.real, curve.network))


def _names(found: Sequence[list[Run]]) -> list[tuple[str, str]]:
    """Key and name of every group; settings tell apart those of one place that would share them."""
    plain = [(_place(group[0]), display_name(group[0])) for group in found]
    count = Counter(plain)
    names = []
    for one, (first, *_) in zip(plain, found, strict=True):
        alone, tail = count[one] == 1, first.settings[:4]
        name = one[1] if alone else f"{one[1]}, settings {tail}"
        names.append((first.family if alone else f"{first.family}-{tail}", name))
    return names


def _place(record: Run) -> tuple[str, str, str]:
    return record.campaign, str(record.task), dataset_label(record)


def display_name(record: Run) -> str:
    """The method or network, with its form and precision where they are not the usual ones."""
    form = record.form
    extra = [form] if form not in (None, "paper") else []
    if record.precision == "real":
        extra.append("real-valued")
    return f"{record.label} ({', '.join(extra)})" if extra else record.label


def _curve(kind: Kind, group: list[Run], key: str, name: str) -> Curve:
    rows: dict[int, list[dict[str, str]]] = {}
    for record in group:
        for row in record.history:
            if row.get(kind.time):
                rows.setdefault(int(row[kind.time]) + 1 - kind.first, []).append(row)
    points = tuple(point for time in sorted(rows) if (point := _point(time, rows[time], kind.values)).mean)
    return Curve(group[0], key, name, len(group), points)


def _point(time: int, rows: list[dict[str, str]], columns: dict[str, str]) -> Point:
    mean: dict[str, float] = {}
    std: dict[str, float | None] = {}
    for column in columns:
        scale = 100 if column in SHARES else 1
        found = (row.get(column) or row.get(f"{column}_child") for row in rows)
        values = [scale * float(value) for value in found if value]
        if values:
            mean[column] = statistics.fmean(values)
            std[column] = statistics.stdev(values) if len(values) > 1 else None
    return Point(time, mean, std, len(rows))


def by_campaign(kind: Kind, library: Library) -> list[tuple[str, Curve]]:
    """The curves with their campaigns; searches that several campaigns share are one curve, with all their names."""
    if kind.stage != "search":
        return [(curve.place[0], curve) for curve in curves(kind, library)]
    once = searches_once(library)
    return [(found.campaigns, curve) for found in once for curve in curves(kind, Library(found.records))]


def table(kind: Kind, library: Library) -> list[Row]:
    """The curves as rows of results/curves/<kind.name>.csv, see :func:`table_columns`."""
    rows = []
    for campaign, curve in by_campaign(kind, library):
        dataset = curve.place[2]
        for point in curve.points:
            row: Row = {
                "campaign": campaign,
                "dataset": dataset,
                "network": curve.network,
                "n": point.n,
                kind.time: point.time,
            }
            for column in kind.values:
                row[column] = _short(point.mean.get(column))
                row[f"{column}_std"] = _short(point.std.get(column))
            rows.append(row)
    return rows


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def table_columns(kind: Kind) -> dict[str, str]:
    """Every column of a curve file, in order, with its explanation."""
    named = {
        "campaign": "a folder of results/records/; several: they share the search",
        "dataset": "data set the runs used, (other data) where no paper measured on it, (stand-in) likewise",
        "network": "method or network, with its form and precision where they are not the usual ones",
        "n": "number of runs the means are over",
        kind.time: f"{kind.time}s done, from 1",
    }
    for column, about in kind.values.items():
        named[column] = f"{about}; mean over the runs"
        named[f"{column}_std"] = "its sample standard deviation; empty for one run"
    return named
