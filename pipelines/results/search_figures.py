"""Figures of the searches: accuracies over time, surviving operations, found cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results.claims import dataset_label
from pipelines.results.pictures import WIDTH, Picture, method_name, percent, series
from pipelines.results.plotting import CHILD, COLOURS, PARENT, QUIET, canvas, save
from pipelines.results.records import Record
from search.files import write_text
from search.genotype import EDGES, OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _time_axis(history: Sequence[dict[str, str]]) -> str | None:
    return next((name for name in ("step", "epoch") if history and name in history[0]), None)


def trajectory(records: list[Record], folder: Path) -> list[Picture]:
    """Accuracies of Child and Parent over a search, and below them how many operations an edge still has."""
    records = [record for record in records if _time_axis(record.history)]
    drawn = [r for r in records if series(r.history, _time_axis(r.history) or "", "accuracy_child")[0]]
    if not drawn:
        return []
    shrinks = any("k" in record.history[0] for record in drawn)
    ratios = {"height_ratios": [3, 1]} if shrinks else None
    with canvas(1 + shrinks, 1, WIDTH, 3.9 if shrinks else 2.9, sharex=True, gridspec_kw=ratios) as (
        figure,
        axes,
    ):
        top = axes[0, 0]
        for place, record in enumerate(drawn):
            _accuracy_lines(top, record, place)
            if shrinks:
                x, y = series(record.history, _time_axis(record.history) or "", "k")
                axes[1, 0].step(x, y, where="mid", color=QUIET, alpha=_fade(place))
        top.set_ylabel("validation accuracy %")
        top.legend(loc="best")
        if shrinks:
            axes[1, 0].set_ylabel("ops an edge")
            axes[1, 0].set_ylim(0, len(OPERATIONS) + 0.5)
        axes[-1, 0].set_xlabel("draw" if shrinks else _time_axis(drawn[0].history) or "")
        first = drawn[0]
        name = f"search-{first.profile}-{first.family}"
        save(figure, folder / f"{name}.svg")
    caption = f"Seeds {', '.join(str(r.seed) for r in drawn)}, all of them; on {dataset_label(first)}."
    if shrinks:
        caption += " Below: how many operations each edge still has."
    return [Picture(name, "search", f"{method_name(first)}: the search over time ({first.profile})", caption)]


def _fade(place: int) -> float:
    return max(0.35, 1 - 0.25 * place)


def _accuracy_lines(axis: Axes, record: Record, place: int) -> None:
    time = _time_axis(record.history) or ""
    for column, name, colour in (
        ("accuracy_child", "Child (1-bit)", CHILD),
        ("accuracy_parent", "Parent", PARENT),
    ):
        x, y = series(record.history, time, column)
        if column == "accuracy_child" and record.run["precision"] == "real":
            name = "searched real-valued"
        if x:
            axis.plot(
                x,
                percent(y),
                ".-",
                markersize=4,
                linewidth=1.1,
                color=colour,
                alpha=_fade(place),
                label=name if place == 0 else None,
            )


def survivor_shares(rounds: Sequence[dict[str, str]], column: str) -> list[list[float]]:
    """For each round, the share of the edges on which each of the 8 operations survives.

    ``column`` holds 14 fields joined by ``|``, each the digits of the surviving operations.
    """
    shares = []
    for row in rounds:
        edges = row[column].split("|")
        shares.append([sum(str(op) in edge for edge in edges) / len(EDGES) for op in range(len(OPERATIONS))])
    return shares


def survivors(records: list[Record], folder: Path) -> list[Picture]:
    """Which operations survive: a map of operation by round, one half for each kind of cell."""
    records = [record for record in records if record.rounds and "surviving_normal" in record.rounds[0]]
    if not records:
        return []
    first = records[0]
    with canvas(1, 2, WIDTH, 2.9, sharey=True) as (figure, axes):
        for axis, kind in zip(axes[0], ("normal", "reduce"), strict=True):
            every = [survivor_shares(record.rounds, f"surviving_{kind}") for record in records]
            length = min(len(shares) for shares in every)
            mean = [
                [statistics.fmean(shares[step][op] for shares in every) for op in range(len(OPERATIONS))]
                for step in range(length)
            ]
            _survivor_map(axis, mean)
            axis.set_title(f"{'normal' if kind == 'normal' else 'reduction'} cell")
        axes[0, 0].set_yticks(range(len(OPERATIONS)), OPERATIONS)
        axes[0, 0].invert_yaxis()
        name = f"survivors-{first.profile}-{first.family}"
        save(figure, folder / f"{name}.svg")
    caption = (
        "Percent of the 14 edges on which an operation is still alive after each round; "
        f"mean over seeds {', '.join(str(r.seed) for r in records)}."
    )
    return [
        Picture(name, "search", f"{method_name(first)}: which operations survive ({first.profile})", caption)
    ]


def _survivor_map(axis: Axes, shares: list[list[float]]) -> None:
    from matplotlib.patches import Rectangle

    for step, row in enumerate(shares):
        for op, share in enumerate(row):
            axis.add_patch(
                Rectangle(
                    (step - 0.48, op - 0.46), 0.96, 0.92, facecolor=COLOURS[0], alpha=0.06 + 0.7 * share
                )
            )
            axis.text(step, op, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5)
    axis.set_xlim(-0.6, len(shares) - 0.4)
    axis.set_ylim(-0.6, len(OPERATIONS) - 0.4)
    axis.set_xticks(range(len(shares)), [str(step + 1) for step in range(len(shares))])
    axis.set_xlabel("round")
    axis.grid(visible=False)


def cell(record: Record, folder: Path) -> Picture:
    """The found cells as a graph."""
    from search.drawing import to_svg

    assert record.genotype is not None
    name = f"cell-{record.profile}-{record.network}"
    write_text(folder / f"{name}.svg", to_svg(record.genotype))
    title = f"{method_name(record)}, seed {record.seed} ({record.profile})"
    return Picture(name, "cell", title, f"Genotype {record.genotype.hash[:8]}, normal and reduction cell.")
