"""Figures of what runs did over time: one line a network, the mean of its runs, with a band around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.results.curves import Curve, Kind
from pipelines.results.pictures import WIDTH, Picture, series, slug
from pipelines.results.plotting import CHILD, PARENT, QUIET, canvas, colour_of, save
from pipelines.results.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.18
"""Opacity of a band."""
LINES = 12
"""Most lines in a figure; more go into further figures."""


def training(kind: Kind, curves: Sequence[Curve], folder: Path) -> list[Picture]:
    """Loss and test values by epoch: a figure for each campaign, task and data set, dashed for real-valued twins."""
    colours = colour_of([curve.first.family for curve in curves])
    pictures = []
    for place in dict.fromkeys(curve.place for curve in curves):
        members = [curve for curve in curves if curve.place == place]
        parts = [members[start : start + LINES] for start in range(0, len(members), LINES)]
        for number, part in enumerate(parts, 1):
            more = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            pictures.append(_training(kind, part, colours, folder, number, more))
    return pictures


def _training(
    kind: Kind, curves: Sequence[Curve], colours: dict[str, str], folder: Path, number: int, more: str
) -> Picture:
    first = curves[0].first
    shown = {column: title for column, title in kind.values.items() if any(c.line(column)[0] for c in curves)}
    changes = sorted({change for curve in curves for change in stage_changes(curve.first)})
    with canvas(1, len(shown), WIDTH, 2.9 + 0.17 * ((len(curves) + 2) // 3)) as (figure, axes):
        for axis, (column, title) in zip(axes[0], shown.items(), strict=True):
            for curve in curves:
                _banded(
                    axis,
                    curve,
                    column,
                    colours[curve.first.family],
                    "--" if curve.real else "-",
                    curve.network,
                )
            for change in changes:
                _mark(axis, change)
            axis.set_title(title)
            axis.set_xlabel(kind.time)
            axis.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3 if len(shown) > 1 else 2)
        name = slug(f"training-{kind.name}-{first.campaign}-{first.task}-{first.data.name}")
        name += f"-{number}" if more else ""
        save(figure, folder / f"{name}.svg")
    twins = " Dashed: the real-valued twin." if any(curve.real for curve in curves) else ""
    caption = f"{_runs(curves)}{twins}{_stages(changes)}"
    title = f"Training on {curves[0].place[2]} ({first.campaign}){more}"
    return Picture(name, kind.name, title, caption, first.campaign, first.data.name)


class Change(NamedTuple):
    """Where a recipe goes on to its next stage: between two epochs, with the bits of weights and activations (W/A)
    that 1-bit networks have before and after."""

    place: float
    before: str
    after: str


def stage_changes(record: Run) -> list[Change]:
    """The changes of stage in a run's history, epochs counted from 1; none for a recipe of one stage."""
    stages = [int(row["stage"]) for row in record.history if row.get("stage")]
    return [
        Change(place + 0.5, _widths(record, stages[place - 1]), _widths(record, stages[place]))
        for place in range(1, len(stages))
        if stages[place] != stages[place - 1]
    ]


def _widths(record: Run, stage: int) -> str:
    settings = record.params["retrain"][record.task]["stages"][stage]
    return "/".join("1" if settings[kind] else "32" for kind in ("binary_weights", "binary_activations"))


def _mark(axis: Axes, change: Change) -> None:
    axis.axvline(change.place, color=QUIET, linewidth=1, linestyle=":")
    for words, side, shift in ((change.before, "right", -4), (change.after, "left", 4)):
        axis.annotate(
            f"W/A {words}",
            (change.place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(shift, -2),
            textcoords="offset points",
            fontsize=7.5,
            color=QUIET,
            ha=side,
            va="top",
        )


def _stages(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    return (
        " Dotted upright line: the next recipe stage begins; beside it the bits of weights and activations (W/A) "
        "that the 1-bit networks have in each stage."
    )


def _banded(axis: Axes, curve: Curve, column: str, colour: str, style: str, label: str) -> None:
    time, mean, std = curve.line(column)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(time) == 1 else {}
    axis.plot(time, mean, color=colour, linestyle=style, label=label, **marker)
    if any(std):
        low = [value - spread for value, spread in zip(mean, std, strict=True)]
        high = [value + spread for value, spread in zip(mean, std, strict=True)]
        axis.fill_between(time, low, high, color=colour, alpha=BAND, linewidth=0)


def _runs(curves: Sequence[Curve]) -> str:
    counts = [curve.n for curve in curves]
    if max(counts) == 1:
        return "One run a line."
    least = "" if min(counts) == max(counts) else f"{min(counts)} to "
    return f"Line: mean over {least}{max(counts)} runs; band: standard deviation."


def searching(kind: Kind, curves: Sequence[Curve], folder: Path) -> list[Picture]:
    """Validation accuracies over each search, and below them how many operations an edge still has."""
    return [_searching(kind, curve, folder) for curve in curves]


def _searching(kind: Kind, curve: Curve, folder: Path) -> Picture:
    first = curve.first
    steps, alive = series(first.history, kind.time, "k")
    ratios = {"height_ratios": [3, 1]} if steps else None
    whole = "architecture" in first.history[0]
    child = "searched real-valued" if curve.real else "drawn network (1-bit)" if whole else "Child (1-bit)"
    with canvas(2 if steps else 1, 1, WIDTH, 3.7 if steps else 2.7, sharex=True, gridspec_kw=ratios) as (
        figure,
        axes,
    ):
        for column, name, colour in (
            ("accuracy", child, CHILD),
            ("accuracy_parent", "Parent", PARENT),
        ):
            if curve.line(column)[0]:
                _banded(axes[0, 0], curve, column, colour, "-", name)
        axes[0, 0].set_ylabel("validation accuracy %")
        axes[0, 0].legend(loc="best")
        if steps:
            axes[1, 0].step([step + 1 for step in steps], alive, where="mid", color=QUIET)
            axes[1, 0].set_ylabel("ops an edge")
            axes[1, 0].set_ylim(0, max(alive) + 0.5)
        axes[-1, 0].set_xlabel("draw" if steps else kind.time)
        name = slug(f"search-{first.campaign}-{curve.key}")
        save(figure, folder / f"{name}.svg")
    below = " Below: how many operations each edge still has." if steps else ""
    caption = f"{_runs([curve])} On {curve.place[2]}.{below}"
    title = f"{curve.network}: the search over time"
    return Picture(name, "search", title, caption, first.campaign, first.data.name)
