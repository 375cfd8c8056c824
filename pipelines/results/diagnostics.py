"""Figures of the inside of a search: alphas, DCP-NAS's tangents and psi; and accuracy over swept settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.results.column import DATA_MARKS
from pipelines.results.comparison import by_search
from pipelines.results.pictures import WIDTH, Picture, method_name, series, slug
from pipelines.results.plotting import CHILD, COLOURS, PARENT, canvas, save, spare
from pipelines.results.records import Library
from pipelines.results.run import RetrainRun, Run
from pipelines.results.statistics import Rules, mean_interval
from pipelines.results.variants import flat

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"child": ("Child", CHILD), "parent": ("Parent", PARENT)}
LOGARITHMIC = 100.0
"""A swept setting that spans this factor has a logarithmic axis."""


class Panel(NamedTuple):
    """A panel of the figure of alphas: its title, and for each line a column of history.csv, a phase and its style."""

    title: str
    lines: tuple[tuple[str, str, str], ...]
    factor: float = 1.0


PANELS = (
    Panel(
        "validation accuracy %", (("accuracy_child", "child", "-"), ("accuracy_parent", "parent", "-")), 100.0
    ),
    Panel("entropy of alpha", (("entropy", "child", "-"), ("entropy", "parent", "-"))),
    Panel("distance ||D|| of the tangents", (("distance", "child", "-"),)),
    Panel("cosine of the tangents", (("tangent_cosine", "child", "-"),)),
    Panel(
        "psi: mean (line), largest (dashed)",
        (
            ("psi_mean", "child", "-"),
            ("psi_mean", "parent", "-"),
            ("psi_max", "child", "--"),
            ("psi_max", "parent", "--"),
        ),
    ),
    Panel("reconstruction error", (("reconstruction", "child", "-"),)),
    Panel("margin of the best operation", (("mean_margin", "child", "-"), ("mean_margin", "parent", "-"))),
    Panel("Kendall's tau with the epoch before", (("tau", "child", "-"), ("tau", "parent", "-"))),
    Panel(
        "edges free of parameters (line), collapse (dashed)",
        (
            ("parameter_free_share", "child", "-"),
            ("parameter_free_share", "parent", "-"),
            ("collapsed", "child", "--"),
            ("collapsed", "parent", "--"),
        ),
    ),
)


def alphas(records: Sequence[Run], folder: Path) -> list[Picture]:
    """A search by gradients, by epoch, a line a seed: accuracies, alphas, collapse; tangents and psi of DCP-NAS."""
    records = [record for record in records if record.history and "entropy" in record.history[0]]
    panels = [panel for panel in PANELS if any(_lines(record, panel) for record in records)]
    if not panels:
        return []
    first = records[0]
    rows = (len(panels) + 1) // 2
    with canvas(rows, 2, WIDTH, 2.1 * rows + 0.3, sharex=True) as (figure, axes):
        for axis, panel in zip(axes.flat, panels, strict=False):
            axis.set_title(panel.title)
            for place, record in enumerate(records):
                for phase, style, x, y in _lines(record, panel):
                    values = [panel.factor * value for value in y]
                    name, colour = PHASES[phase]
                    label = name if place == 0 and axis is axes[0, 0] else None
                    fade = max(0.35, 1 - 0.2 * place)
                    axis.plot(x, values, style, marker=".", color=colour, alpha=fade, label=label)
        for axis in axes[-1]:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        spare(list(axes.flat)[len(panels) :])
        figure.legend(loc="outside lower center", ncols=2)
        name = slug(f"alphas-{first.campaign}-{first.family}")
        save(figure, folder / f"{name}.svg")
    seeds = ", ".join(str(record.seed) for record in records)
    turns = "; the epochs of Parent and Child take turns" if "phase" in first.history[0] else ""
    caption = f"A line a seed (seeds {seeds}, all of them){turns}."
    title = f"{method_name(first)}: alphas epoch by epoch"
    return [Picture(name, "search", title, caption, first.campaign, first.data.name)]


def _lines(record: Run, panel: Panel) -> list[tuple[str, str, list[float], list[float]]]:
    """Phase, style, epochs (from 1) and values of each line that the record has."""
    found = []
    for column, phase, style in panel.lines:
        rows = [row for row in record.history if row.get("phase", "child") == phase]
        x, y = series(rows, "step", column)
        if x:
            found.append((phase, style, [step + 1 for step in x], y))
    return found


class Point(NamedTuple):
    """A variant in a sweep: its settings by dotted key, and its retrained accuracy in percent by search seed."""

    settings: dict[str, Any]
    values: list[float]


def sweeps(library: Library, rules: Rules, folder: Path) -> list[Picture]:
    """Retrained 1-bit accuracy over the number, or two numbers, in which the variants of a method differ."""
    groups: dict[tuple[str, str, str, str], dict[str, list[RetrainRun]]] = {}
    for record in library.of("retrain"):
        if record.method is not None and record.precision == "1bit":
            key = (record.campaign, record.method, record.data.name, record.settings)
            groups.setdefault(key, {}).setdefault(record.family, []).append(record)
    pictures = []
    for key, families in sorted(groups.items()):
        points = alike([point for records in families.values() if (point := _point(records, library))])
        keys = swept(points)
        if keys:
            pictures.append(_sweep(key, families, points, keys, rules, folder))
    return pictures


def _point(records: list[RetrainRun], library: Library) -> Point | None:
    search = library.search_of(records[0])
    if search is None:
        return None
    return Point(flat(search.params), list(by_search(records).values()))


def alike(points: Sequence[Point]) -> list[Point]:
    """The points that differ in numbers alone, the largest such set: a variant in words is no point of a line."""
    found: dict[str, list[Point]] = {}
    for point in points:
        words = {key: value for key, value in point.settings.items() if not _is_number(value)}
        found.setdefault(repr(sorted(words.items())), []).append(point)
    return max(found.values(), key=len, default=[])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def swept(points: Sequence[Point]) -> list[str]:
    """The one or two numbers in which at least three variants differ, a method's own before the space's; else none."""
    if len(points) < 3:
        return []
    varied = [
        key
        for key in points[0].settings
        if any(point.settings.get(key) != points[0].settings[key] for point in points)
    ]
    values = [point.settings.get(key) for key in varied for point in points]
    numeric = all(map(_is_number, values))
    return (
        sorted(varied, key=lambda key: not key.startswith("method.")) if numeric and len(varied) < 3 else []
    )


def _sweep(
    key: tuple[str, str, str, str],
    families: dict[str, list[RetrainRun]],
    points: list[Point],
    keys: list[str],
    rules: Rules,
    folder: Path,
) -> Picture:
    campaign, method, dataset, settings = key
    lines: dict[Any, list[Point]] = {}
    for point in points:
        lines.setdefault(point.settings[keys[1]] if len(keys) == 2 else None, []).append(point)
    if all(len(members) == 1 for members in lines.values()):
        lines = {None: points}  # the second number follows from the first
    names = [name.rpartition(".")[2] for name in keys]
    with canvas(1, 1, WIDTH, 3.2) as (figure, axes):
        axis = axes[0, 0]
        for place, (value, members) in enumerate(sorted(lines.items(), key=lambda item: item[0] or 0)):
            label = None if value is None else f"{names[1]} {value:g}"
            _line(axis, members, keys[0], COLOURS[place % len(COLOURS)], label, rules)
        span = [float(point.settings[keys[0]]) for point in points]
        if min(span) > 0 and max(span) / min(span) >= LOGARITHMIC:
            axis.set_xscale("log")
        axis.set_xlabel(names[0])
        axis.set_ylabel("test accuracy %")
        if len(lines) > 1:
            axis.legend(loc="best")
        name = slug(f"sweep-{campaign}-{method}-{dataset}-{settings}")
        save(figure, folder / f"{name}.svg")
    label = next((records[0].label for records in families.values() if records[0].is_base), method)
    title = f"{label}: 1-bit accuracy over {' and '.join(names)} ({campaign})"
    mark = DATA_MARKS[next(iter(families.values()))[0].data_kind]
    caption = (
        f"Retrained on {dataset}{mark}. Dots: searches, none left out; line: their mean, "
        f"bars: bootstrap interval ({100 * rules.confidence:g} %)."
    )
    return Picture(name, "accuracy", title, caption, campaign, dataset)


def _line(axis: Axes, members: list[Point], key: str, colour: str, label: str | None, rules: Rules) -> None:
    ordered = sorted(members, key=lambda point: float(point.settings[key]))
    x = [float(point.settings[key]) for point in ordered]
    found = [mean_interval(point.values, rules) for point in ordered]
    means = [float(estimate.value or 0.0) for estimate in found]
    low = [mean - (mean if e.low is None else e.low) for mean, e in zip(means, found, strict=True)]
    high = [(mean if e.high is None else e.high) - mean for mean, e in zip(means, found, strict=True)]
    axis.errorbar(x, means, yerr=[low, high], color=colour, marker="_", capsize=3, label=label)
    for place, point in zip(x, ordered, strict=True):
        axis.plot([place] * len(point.values), point.values, "o", color=colour, markersize=3.5, alpha=0.5)
