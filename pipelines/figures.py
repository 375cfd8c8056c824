"""Figures of the results, as SVG: searches, surviving operations, cells, accuracies, training curves."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results.campaigns import campaign_order, searches_once
from pipelines.results.claims import read_claims
from pipelines.results.column import DATA_MARKS, Row, label, own_column
from pipelines.results.curve_figures import searching, training
from pipelines.results.curves import KINDS, curves
from pipelines.results.diagnostics import alphas, sweeps
from pipelines.results.labels import annotate
from pipelines.results.level import CITED
from pipelines.results.pictures import WIDTH, Picture
from pipelines.results.plotting import CHILD, PARENT, QUIET, canvas, colour_of, save, spare
from pipelines.results.records import Library
from pipelines.results.search_figures import cell, survivors

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_all(library: Library, classification: list[Row], folder: Path) -> list[Picture]:
    """Draw every figure that the records allow into ``folder``; returns them in the order of the report.

    Campaigns come in the order of :func:`campaign_order`; searches that several of them share are drawn once.
    """
    order = campaign_order(library)
    pictures = _searches(library, folder)
    for kind in KINDS:
        if kind.stage != "search":
            drawn = training(kind, curves(kind, library), folder)
            pictures += sorted(drawn, key=lambda picture: order.index(picture.campaign))
    own = {row["campaign"][0] for row in classification if row["level"] != CITED}
    for campaign in (name for name in order if name in own):
        rows = [row for row in classification if row["campaign"] == (campaign,)]
        pictures += _accuracies(rows, campaign, folder) + _against_ops(rows, campaign, folder)
    pictures += sweeps(library, read_claims()[0], folder)
    return pictures + _cited_ops(classification, folder)


def _searches(library: Library, folder: Path) -> list[Picture]:
    """The searches over time, round by round and their cells; each names all the campaigns it belongs to."""
    time = next(kind for kind in KINDS if kind.stage == "search")
    pictures: list[Picture] = []
    cells: list[Picture] = []
    for searches in searches_once(library):
        records = list(searches.records)
        found = searching(time, curves(time, Library(searches.records)), folder)
        found += survivors(records, folder) + alphas(records, folder)
        pictures += [_of(picture, searches.campaigns) for picture in found]
    for record, campaigns in library.distinct("search"):
        if record.genotype:
            cells.append(_of(cell(record, folder), ", ".join(campaigns)))
    return pictures + cells


def _of(picture: Picture, campaigns: str) -> Picture:
    return replace(picture, title=f"{picture.title} ({campaigns})")


def _panels(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        mark = DATA_MARKS[row["data_kind"]]
        images = f", {row['train_images']:,} training images" if row["train_images"] else ""
        found.setdefault(f"{row['dataset']}{mark}{images}", []).append(row)
    return sorted(found.items())


def _accuracies(rows: list[Row], campaign: str, folder: Path) -> list[Picture]:
    """Every run of a campaign as a dot, the mean as a line; one panel a data set."""
    panels = _panels(rows)
    heights = [len(group) + 1.0 for _, group in panels]
    with canvas(
        len(panels),
        1,
        WIDTH,
        0.29 * sum(heights) + 0.75 * len(panels),
        gridspec_kw={"height_ratios": heights},
    ) as (figure, axes):
        for axis, (title, group) in zip(axes[:, 0], panels, strict=True):
            for place, row in enumerate(group):
                values = row["values"]
                real = row["precision"] == "real"
                face = "none" if real else CHILD
                axis.scatter(
                    values, [place] * len(values), s=26, facecolors=face, edgecolors=CHILD, alpha=0.85
                )
                mean = statistics.fmean(values)
                axis.plot([mean, mean], [place - 0.32, place + 0.32], color=PARENT, linewidth=2)
            axis.set_yticks(range(len(group)), [label(row) for row in group])
            axis.set_ylim(len(group) - 0.4, -0.6)
            axis.set_title(title)
            axis.set_xlabel("test accuracy %")
        name = f"accuracy-{campaign}"
        save(figure, folder / f"{name}.svg")
    caption = (
        "Each dot is a run, none left out; the bar is the mean. Filled: 1-bit; open: real-valued. "
        "Panels do not compare."
    )
    return [
        Picture(name, "accuracy", f"Accuracy after retraining, every run ({campaign})", caption, campaign)
    ]


def _against_ops(rows: list[Row], campaign: str, folder: Path) -> list[Picture]:
    """Accuracy over OPs of a campaign's networks, a panel a data set."""
    panels = [(title, [row for row in group if row.get("ops_strict_M")]) for title, group in _panels(rows)]
    panels = [(title, group) for title, group in panels if group]
    if not panels:
        return []
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    with canvas(lines, columns, WIDTH, 3.1 * lines) as (figure, axes):
        colours = colour_of([row["name"] for _, group in panels for row in group])
        for axis, (title, group) in zip(axes.flat, panels, strict=False):
            for row in group:
                _ops_point(axis, row, colours[row["name"]])
            _ops_axis(axis, title.replace(", ", "\n", 1))
        spare(list(axes.flat)[len(panels) :])
        figure.draw_without_rendering()
        for axis, (_, group) in zip(axes.flat, panels, strict=False):
            annotate(axis, [(row["ops_strict_M"], _accuracy(row), label(row)) for row in group], 7.5)
        name = f"accuracy-ops-{campaign}"
        save(figure, folder / f"{name}.svg")
    caption = (
        "Dot: OPs counted strictly (W1A32 as real); the line reaches to the generous count. "
        "Filled: 1-bit; open: real-valued; bars: standard deviation. Panels do not compare."
    )
    return [Picture(name, "ops", f"Accuracy against operations ({campaign})", caption, campaign)]


def _cited_ops(rows: list[Row], folder: Path) -> list[Picture]:
    """The literature's accuracy over OPs, in a figure of its own."""
    quoted = [row for row in rows if row["level"] == CITED and row["paper_ops_M"] and row["paper_accuracy"]]
    with canvas(1, 1, WIDTH, 3.6) as (figure, axes):
        axis = axes[0, 0]
        for row in quoted:
            axis.plot([row["paper_ops_M"]], [row["paper_accuracy"]], "x", color=QUIET, markersize=5)
        _ops_axis(axis, "ImageNet, cited", "OPs in millions, each source's own convention")
        figure.draw_without_rendering()
        annotate(axis, [(row["paper_ops_M"], row["paper_accuracy"], row["name"]) for row in quoted], 7)
        save(figure, folder / "cited-ops.svg")
    caption = (
        "Printed by others on ImageNet, OPs by each source's own convention. "
        "Nothing in this figure was run here."
    )
    return [Picture("cited-ops", "cited", "The literature: accuracy against operations", caption)]


def _accuracy(row: Row) -> float:
    return float(row[own_column(row, "accuracy")])


def _ops_point(axis: Axes, row: Row, colour: str) -> None:
    value, std = _accuracy(row), row[own_column(row, "accuracy_std")]
    strict, generous = row["ops_strict_M"], row["ops_generous_M"]
    axis.plot([generous, strict], [value, value], color=colour, linewidth=1, alpha=0.7)
    axis.errorbar(
        [strict],
        [value],
        yerr=[std] if std else None,
        color=colour,
        marker="o",
        markersize=5.5,
        markerfacecolor="none" if row["precision"] == "real" else colour,
        capsize=2,
    )


def _ops_axis(axis: Axes, title: str, about: str = "OPs, millions") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.28, y=0.15)
    axis.set_title(title)
    axis.set_xlabel(about)
    axis.set_ylabel("test accuracy %")
