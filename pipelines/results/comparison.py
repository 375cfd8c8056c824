"""Every found method against random search, and every variant against its method's base form, after retraining."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelines.results.column import DASH, DATA_KINDS, Column, Row, Table, label, own_column, with_std
from pipelines.results.level import level
from pipelines.results.records import Library
from pipelines.results.run import RetrainRun
from pipelines.results.statistics import Estimate, Rules, holm, paired_difference

REFERENCE = "random"
DATA_KIND_DOC = (
    "paper: a data set of the papers (`datasets` in literature.yaml); other: other data than the "
    "papers'; stand-in: stands in for the papers'. Only the first compares with the literature"
)


def by_search(runs: Sequence[RetrainRun]) -> dict[int, float]:
    """Accuracy in percent by search seed, the mean over the seeds of the training."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.search_seed is not None:
            found.setdefault(run.search_seed, []).append(100 * float(run.metrics["accuracy"]))
    return {seed: statistics.fmean(values) for seed, values in sorted(found.items())}


@dataclass
class Compared:
    """The retrainings of one method or variant, and what they are compared with in their block.

    Attributes:
        runs: One block's: a campaign, data set, precision and recipe.
        against: The reference; None for the reference itself.
        library, rules: For level and intervals.
        p_holm: The corrected p value, filled in last.
    """

    runs: list[RetrainRun]
    against: Compared | None
    library: Library
    rules: Rules
    p_holm: float | None = None

    @property
    def first(self) -> RetrainRun:
        """The first of the runs, for all in which they are the same."""
        return self.runs[0]

    @cached_property
    def values(self) -> dict[int, float]:
        """Accuracy in percent by search seed."""
        return by_search(self.runs)

    @cached_property
    def estimate(self) -> Estimate | None:
        """The paired difference; None without a pair."""
        other = self.against.values if self.against else {}
        pairs = sorted(self.values.keys() & other.keys())
        first, second = ([side[seed] for seed in pairs] for side in (self.values, other))
        return paired_difference(first, second, 0.0, self.rules) if pairs else None

    def number(self, key: str) -> float | None:
        """A number of :data:`MEASURED`."""
        every, found = list(self.values.values()), self.estimate
        if key == "accuracy":
            return statistics.fmean(every)
        if key == "accuracy_std":
            return statistics.stdev(every) if len(every) > 1 else None
        names = {"difference": "value", "difference_low": "low", "difference_high": "high"}
        return getattr(found, names[key]) if found else None


def comparison_rows(library: Library, rules: Rules) -> list[Row]:
    """Rows of comparison.csv: a block for every campaign, data set, precision and recipe with a found network."""
    blocks: dict[tuple[str, ...], dict[str, list[RetrainRun]]] = {}
    for run in library.of("retrain"):
        if run.search_seed is not None:
            what = (run.campaign, run.data.name, run.data.sha256, run.precision, run.form, run.settings)
            families = blocks.setdefault(tuple(map(str, what)), {})
            families.setdefault(run.family, []).append(run)
    return [row for _, families in sorted(blocks.items()) for row in _rows(families, library, rules)]


def _rows(families: dict[str, list[RetrainRun]], library: Library, rules: Rules) -> list[Row]:
    block = {name: Compared(runs, None, library, rules) for name, runs in families.items()}
    for one in block.values():
        one.against = _reference(one.first, block)
    tested = [(one, one.estimate.p) for one in block.values() if one.estimate and one.estimate.p is not None]
    for (one, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
        one.p_holm = p
    rows = [{c.key: c.value(one) for c in COLUMNS if c.key and c.value} for one in block.values()]
    return sorted(rows, key=lambda row: (-row[own_column(row, "accuracy")], row["name"]))


def _reference(run: RetrainRun, block: dict[str, Compared]) -> Compared | None:
    """What a row is compared with: a variant with its method's base form, anything else with random search."""
    wanted = [REFERENCE] if run.is_base else [str(run.method), REFERENCE]
    return next((block[name] for name in wanted if name in block and name != run.family), None)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


MEASURED = {
    "accuracy": "test accuracy after retraining, percent; mean over the searches",
    "accuracy_std": "sample standard deviation over the searches; empty for one search",
    "difference": "mean difference to `against`, paired by search seed, percentage points",
    "difference_low": "lower end of its bootstrap interval",
    "difference_high": "upper end of its bootstrap interval",
}


def _signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.2f}"


def _interval(key: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        return DASH if low is None else f"{_signed(low)} to {_signed(high)}"

    return text


def _of_kind(kind: str, prefix: str, where: str) -> list[Column]:
    """The numbers of one kind of data, and how they are read."""

    def value(key: str) -> Callable[[Compared], float | None]:
        return lambda one: _rounded(one.number(key), 3) if one.first.data_kind == kind else None

    accuracy, difference = f"{prefix}accuracy", f"{prefix}difference"
    found = [Column(prefix + key, f"{doc}; {where}", value(key)) for key, doc in MEASURED.items()]
    read = (
        ("top-1 %", 2, with_std(accuracy)),
        ("difference", 5, lambda row: _signed(row[difference])),
        ("interval", 6, _interval(difference)),
    )
    return found + [
        Column("", head=head, main=place, digits=2, shown=shown, kind=kind) for head, place, shown in read
    ]


# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("level", "reproduced at reduced scale / reproduced, computed from the records",
        lambda one: level(one.runs, one.library), "level", 9),
    Column("name", "search method with what its variant changes", lambda one: one.first.label, "network", 1, 1,
        shown=label),
    Column("variant", "entry of search.method in params.yaml; the method's own name: its base form",
        lambda one: one.first.variant, "variant", origin=4),
    Column("precision", "1bit, or real for the real-valued twin", lambda one: one.first.precision),
    Column("form", "layer order of the operations: paper, released or darts", lambda one: one.first.form),
    Column("campaign", "campaign of the run records, a folder of results/records/",
        lambda one: (one.first.campaign,), join=", "),
    Column("dataset", "data set of the retraining", lambda one: one.first.data.name),
    Column("data_kind", DATA_KIND_DOC, lambda one: one.first.data_kind),
    Column("train_images", "images trained on", lambda one: one.first.data.train_images),
    *(column for kind, (prefix, where) in DATA_KINDS.items() for column in _of_kind(kind, prefix, where)),
    Column("searches",
        "number of searches, each retrained with one seed or more; training seeds are averaged first",
        lambda one: len(one.values), "searches", 3, digits=2),
    Column("runs", "number of retrainings, all of them", lambda one: len(one.runs), "runs", origin=3, digits=2),
    Column("values", "accuracy of every search, percent, in the order of the search seeds",
        lambda one: tuple(one.values.values()), "top-1 %, every search", origin=2, item="{:.2f}"),
    Column("against", "what it is compared with: random search, for a variant its method's base form",
        lambda one: one.against.first.label if one.against else None, "against", 4),
    Column("pairs", "search seeds that both have", lambda one: one.estimate.n if one.estimate else None,
        "pairs", 7, digits=2),
    Column("p", "two-sided p value of the paired t-test; empty below the least number of pairs in claims.yaml",
        lambda one: _rounded(one.estimate.p, 5) if one.estimate else None),
    Column("p_holm", "the same after Holm's correction over the tests of this campaign, data set and precision",
        lambda one: _rounded(one.p_holm, 5), "p, corrected", 8, digits=4),
    Column("settings", "short hash of the retraining's settings", lambda one: one.first.settings, "settings",
        origin=5),
)
# fmt: on
COMPARISON = Table(
    "comparison",
    "Comparison",
    "retrain",
    "Every found network against random search, every variant of a method against its base form: paired by "
    "search seed, training seeds averaged first. A difference says something where the p value after Holm's "
    "correction is small; where it is empty there were too few pairs.",
    COLUMNS,
    note="Differences in percentage points, with their bootstrap intervals.",
)
