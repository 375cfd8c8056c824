"""What the benchmark's table says: does the Parent rank architectures as the Child does, and does it help to choose?

Every number has a percentile bootstrap interval over architectures. ``python -m pipelines.benchmark report`` writes
``results/benchmark.md``, ``benchmark.csv`` and ``figures/benchmark.svg``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance

import numpy as np
from scipy import stats

from pipelines.results.plotting import CHILD, canvas, save
from search.benchmark import Benchmark, Entry, Results
from search.files import write_csv, write_text

BETAS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""beta_P of (4.15): 0 is the Child alone, 1 the Parent alone."""
RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
"""Intervals are part of committed files: the same table gives the same digits."""
LEAST = 10
"""Below so many architectures a rank correlation is not printed."""


@dataclass(frozen=True)
class Finding:
    """A number about the table.

    Attributes:
        key: What tables and pages call it.
        text: What it is, for a reader.
        n: Architectures it rests on.
        value: The number; None where the table is too small.
        low, high: Its interval.
    """

    key: str
    text: str
    n: int
    value: float | None
    low: float | None
    high: float | None

    def shown(self) -> str:
        """Value and interval, two decimals."""
        if self.value is None:
            return "not yet"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def findings(table: Benchmark) -> list[Finding]:
    """All that is read off a table."""
    entries = list(table.values())
    child = [entry.child.seed(0).test for entry in entries]
    parent = [entry.parent.seed(0).test for entry in entries]
    found = [
        _rank("tau_child_parent", "Kendall's tau of Child and Parent test accuracy, seed 0", child, parent),
        _mean("child_mean", "mean test accuracy of the Children, %", [100 * value for value in child]),
        _mean("parent_mean", "mean test accuracy of the Parents, %", [100 * value for value in parent]),
        *_indicators(entries),
        *_proxies(entries, child),
    ]
    for precision in ("child", "parent"):
        found.append(_signal(precision, [getattr(entry, precision) for entry in entries]))
    for precision, values in (("child", child), ("parent", parent)):
        found += _operations(table, entries, precision, values)
    return found


def _indicators(entries: Sequence[Entry]) -> list[Finding]:
    """z of one seed's validation accuracies against what the Child reaches with other seeds.

    The truth must not share a training with the indicator: its luck would count as skill. Where no architecture
    has other seeds yet there is nothing to compare.
    """
    repeated = [entry for entry in entries if len(entry.child.runs) > 1]
    truth = [fmean(run.test for run in entry.child.runs if run.seed != 0) for entry in repeated]
    return [
        _rank(
            f"tau_z_{beta:g}",
            f"tau of z at beta_P = {beta:g} (seed 0, validation) with the Child's test accuracy (other seeds)",
            [entry.indicator(beta) for entry in repeated],
            truth,
        )
        for beta in BETAS
    ]


def _proxies(entries: Sequence[Entry], child: Sequence[float]) -> list[Finding]:
    """What a sceptic asks for: would counting have done as well?"""
    found = []
    for column, text in (("child_parameters", "parameters"), ("child_ops_strict", "strict OPs")):
        pairs = [
            (entry.cost[column], value)
            for entry, value in zip(entries, child, strict=True)
            if column in entry.cost
        ]
        found.append(
            _rank(
                f"tau_{column.removeprefix('child_')}",
                f"tau of the Child's {text} with its test accuracy, seed 0",
                [first for first, _ in pairs],
                [second for _, second in pairs],
            )
        )
    return found


def _operations(
    table: Benchmark, entries: Sequence[Entry], precision: str, values: Sequence[float]
) -> list[Finding]:
    """Correlation of how often an operation stands in an architecture with its accuracy."""
    found = []
    for index, operation in enumerate(table.space.operations):
        counts = [float(entry.choices.count(index)) for entry in entries]
        text = f"correlation of the number of {operation} with the {precision.capitalize()}'s test accuracy"
        found.append(_interval(f"{precision}_{operation}", text, (counts, values), _correlation))
    return found


def _signal(precision: str, results: Sequence[Results]) -> Finding:
    """Share of the variance of one seed's test accuracy that lies between architectures, not between seeds.

    From the architectures with several seeds: 1 - (mean variance within) / (variance of single runs).
    """
    repeated = [found for found in results if len(found.runs) > 1]
    key, text = f"signal_{precision}", f"signal share of one run's test accuracy, {precision.capitalize()}"
    runs = [[run.test for run in found.runs] for found in repeated]

    def share(chosen: np.ndarray) -> float:
        within = fmean(variance(runs[index]) for index in chosen)
        total = variance([runs[index][0] for index in chosen])
        return 1 - within / total if total > 0 else float("nan")

    return _bootstrap(key, text, len(repeated), share)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _tau(first: np.ndarray, second: np.ndarray) -> float:
    return float(stats.kendalltau(first, second).statistic)


def _rank(key: str, text: str, first: Sequence[float], second: Sequence[float]) -> Finding:
    return _interval(key, text, (first, second), _tau)


def _mean(key: str, text: str, values: Sequence[float]) -> Finding:
    array = np.asarray(values, float)
    return _bootstrap(key, text, len(array), lambda chosen: float(array[chosen].mean()))


def _interval(
    key: str,
    text: str,
    pairs: tuple[Sequence[float], Sequence[float]],
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> Finding:
    first, second = (np.asarray(values, float) for values in pairs)
    return _bootstrap(key, text, len(first), lambda chosen: measure(first[chosen], second[chosen]))


def _bootstrap(key: str, text: str, n: int, measure: Callable[[np.ndarray], float]) -> Finding:
    if n < LEAST:
        return Finding(key, text, n, None, None, None)
    value = measure(np.arange(n))
    generator = np.random.default_rng(SEED)
    sampled = [measure(generator.integers(0, n, n)) for _ in range(RESAMPLES)]
    tail = 50 * (1 - CONFIDENCE)
    if not np.isfinite(value):
        return Finding(key, text, n, None, None, None)
    low, high = np.nanpercentile(sampled, (tail, 100 - tail))
    return Finding(key, text, n, value, float(low), float(high))


def headline(table: Benchmark, found: Sequence[Finding]) -> str:
    """The finding in one sentence, with its interval and what it rests on."""
    by_key = {finding.key: finding for finding in found}
    tau, half, none = (by_key[key] for key in ("tau_child_parent", "tau_z_0.5", "tau_z_0"))
    size = "all" if table.complete else f"{len(table)} drawn of"
    text = (
        f"Over {size} {table.space.size:,} architectures of the small space, each trained from scratch in both "
        f"precisions, Kendall's tau between the real-valued Parent's and the 1-bit Child's test accuracy is "
        f"{tau.shown()}"
    )
    if half.value is None or none.value is None:
        return text + "."
    return (
        f"{text}; to choose a Child, z with beta_P = 0.5 ranks with tau {half.shown()}, the Child's own accuracy "
        f"alone with {none.shown()}."
    )


def write_report(table: Benchmark, folder: Path) -> list[Path]:
    """``benchmark.md``, ``benchmark.csv`` and ``figures/benchmark.svg`` below ``folder``."""
    found = findings(table)
    rows = [
        {
            "key": item.key,
            "n": item.n,
            "value": item.value,
            "low": item.low,
            "high": item.high,
            "what": item.text,
        }
        for item in found
    ]
    paths = [folder / "benchmark.csv", folder / "benchmark.md", folder / "figures/benchmark.svg"]
    write_csv(paths[0], rows)
    write_text(paths[1], _page(table, found))
    _figure(table, paths[2])
    return paths


def _page(table: Benchmark, found: Sequence[Finding]) -> str:
    recipe = table.card["recipe"]
    lines = [
        "# The benchmark of the small space",
        "",
        headline(table, found),
        "",
        f"Each of these {len(table):,} architectures (of {table.space.size:,}) was trained once as Child and once as "
        f"Parent, some with more seeds: CIFAR-10 at {recipe['size']} x {recipe['size']}, {recipe['train_images']:,} "
        f"training images, {recipe['epochs']} epochs, C = {recipe['channels']}, {recipe['cells']} cells, form "
        f"{recipe['style']['form']}. Intervals are {CONFIDENCE:.0%} bootstrap intervals over architectures.",
        "",
        "![Child against Parent](figures/benchmark.svg)",
        "",
        "| what | n | value and interval |",
        "| --- | ---: | ---: |",
        *(f"| {item.text} | {item.n} | {item.shown()} |" for item in found),
        "",
        "Against it can be said: networks of a few thousand weights on small pictures, far from converged, each "
        "trained alone, where the searches share weights.",
        "",
    ]
    return "\n".join(lines)


def _figure(table: Benchmark, path: Path) -> None:
    entries = list(table.values())
    with canvas(1, 1, 6.4, 4.6) as (figure, axes):
        axis = axes[0, 0]
        axis.scatter(
            [100 * entry.parent.seed(0).test for entry in entries],
            [100 * entry.child.seed(0).test for entry in entries],
            s=9,
            color=CHILD,
            alpha=0.55,
            linewidths=0,
        )
        axis.set_xlabel("Parent (real-valued), test accuracy %")
        axis.set_ylabel("Child (1-bit), test accuracy %")
        axis.set_title(f"{len(entries):,} of {table.space.size:,} architectures of the small space, seed 0")
        save(figure, path)
