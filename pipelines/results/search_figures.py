"""Figures of the searches: surviving operations and found cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results.pictures import WIDTH, Picture, method_name, slug
from pipelines.results.plotting import COLOURS, canvas, save
from pipelines.results.run import SearchRun
from search.files import write_text
from search.space import PAPER, SPACES, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def space_of(record: SearchRun) -> Space:
    """The space that was searched; older records know that of the papers alone."""
    return SPACES.get(record.params["space"].get("name", PAPER.name), PAPER)


def survivor_shares(rounds: Sequence[dict[str, str]], column: str, space: Space = PAPER) -> list[list[float]]:
    """For each round, the share of the edges on which each of the space's operations survives.

    ``column`` holds a field an edge, joined by ``|``, each the digits of the surviving operations.
    """
    shares = []
    for row in rounds:
        edges = row[column].split("|")
        operations = range(len(space.operations))
        shares.append([sum(str(op) in edge for edge in edges) / len(edges) for op in operations])
    return shares


def survivors(records: Sequence[SearchRun], folder: Path) -> list[Picture]:
    """A search by elimination, round by round: which operations survive, margins, tau, free share, collapse."""
    records = [record for record in records if record.rounds and "surviving_normal" in record.rounds[0]]
    if not records:
        return []
    first, space = records[0], space_of(records[0])
    names = space.operations
    with canvas(2, 2, WIDTH, 5.0, gridspec_kw={"height_ratios": [3, 2]}) as (figure, axes):
        for axis, kind in zip(axes[0], ("normal", "reduce"), strict=True):
            every = [survivor_shares(record.rounds, f"surviving_{kind}", space) for record in records]
            length = min(len(shares) for shares in every)
            mean = [
                [statistics.fmean(shares[step][op] for shares in every) for op in range(len(names))]
                for step in range(length)
            ]
            _survivor_map(axis, mean)
            axis.set_title(f"{'normal' if kind == 'normal' else 'reduction'} cell")
        axes[0, 0].set_yticks(range(len(names)), names)
        axes[0, 1].set_yticks(range(len(names)), [""] * len(names))
        for place, record in enumerate(records):
            _margins(axes[1, 0], record, place)
            _shares(axes[1, 1], record, place)
        for axis in axes[1]:
            axis.set_xlim(*axes[0, 0].get_xlim())
            axis.set_xticks(axes[0, 0].get_xticks(), axes[0, 0].get_xticklabels())
            axis.set_xlabel("elimination")
        axes[1, 0].set_title("margin of the dropped operation")
        axes[1, 1].set_title("rank correlation and parameter-free share")
        axes[1, 1].set_ylim(-1.05, 1.05)
        axes[1, 1].legend(loc="lower left", fontsize=7.5)
        name = slug(f"survivors-{first.campaign}-{first.family}")
        save(figure, folder / f"{name}.svg")
    caption = (
        "Above: percent of the 14 edges on which an operation is still alive after each elimination, mean over the "
        "seeds. Below, a line a seed: indicator of the second worst minus the worst operation, mean over the edges; "
        "Kendall's tau between the mean indicators before an elimination and those before the one before; share of "
        "parameter-free operations among the survivors, with a cross where the present genotype has collapsed. "
        f"Seeds {', '.join(str(r.seed) for r in records)}, all of them."
    )
    title = f"{method_name(first)}: the eliminations one by one"
    return [Picture(name, "search", title, caption, first.campaign, first.data.name)]


def _numbers(record: SearchRun, column: str) -> tuple[list[int], list[float]]:
    """Rounds (from 0) that have the column, and its values."""
    pairs = [(step, float(row[column])) for step, row in enumerate(record.rounds) if row.get(column)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _margins(axis: Axes, record: SearchRun, place: int) -> None:
    axis.plot(*_numbers(record, "mean_margin"), ".-", color=COLOURS[0], alpha=_fade(place))


def _shares(axis: Axes, record: SearchRun, place: int) -> None:
    names = ("Kendall's tau", "parameter-free share", "collapsed") if place == 0 else (None, None, None)
    axis.plot(*_numbers(record, "tau"), ".-", color=COLOURS[1], alpha=_fade(place), label=names[0])
    x, y = _numbers(record, "parameter_free_share")
    axis.plot(x, y, ".-", color=COLOURS[2], alpha=_fade(place), label=names[1])
    collapsed = {step for step, flag in zip(*_numbers(record, "collapsed"), strict=True) if flag}
    marked = [(step, value) for step, value in zip(x, y, strict=True) if step in collapsed]
    axis.plot(
        [step for step, _ in marked], [value for _, value in marked], "x", color=COLOURS[4], label=names[2]
    )


def _fade(place: int) -> float:
    return max(0.35, 1 - 0.25 * place)


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
    axis.set_ylim(len(shares[0]) - 0.4, -0.6)
    axis.set_xticks(range(len(shares)), [str(step + 1) for step in range(len(shares))])
    axis.set_xlabel("elimination")
    axis.grid(visible=False)


def cell(record: SearchRun, folder: Path) -> Picture:
    """The found cells as a graph."""
    from search.drawing import to_svg

    assert record.genotype is not None
    name = slug(f"cell-{record.campaign}-{record.network}")
    write_text(folder / f"{name}.svg", to_svg(record.genotype))
    title = f"{method_name(record)}, seed {record.seed}"
    caption = f"Genotype {record.genotype.hash[:8]}, normal and reduction cell."
    return Picture(name, "cell", title, caption, record.campaign, record.data.name)
