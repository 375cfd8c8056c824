"""Runs that are one row: those that differ in nothing but their seeds, with all that a column may ask of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.results.defaults import BLOCK
from pipelines.results.level import level
from pipelines.results.literature import counterpart, dataset_names
from pipelines.results.metrics import METRICS
from pipelines.results.records import Library
from pipelines.results.run import DetectRun, ReidRun, Run, SearchRun, Totals
from pipelines.results.variants import changes
from search.genotype import Collapse, collapse


def groups(runs: Iterable[Run], place: Callable[[Run], str] = lambda run: run.campaign) -> list[list[Any]]:
    """Runs that differ in nothing but their seeds, sorted by search seed and seed; ``place``: its campaign."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        data = (run.dataset and (run.dataset.name, run.dataset.sha256, run.dataset.train_images)) or ()
        what = (run.task, *data, run.family, run.precision, run.form, run.settings)
        found.setdefault((place(run), *map(str, what)), []).append(run)
    return [sorted(group, key=lambda r: (r.search_seed or 0, r.seed)) for _, group in sorted(found.items())]


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """The values without repetitions, in order of first appearance."""
    return tuple(dict.fromkeys(values))


def mean(values: Iterable[float | None], digits: int) -> float | None:
    """The rounded mean of the values that are known; None where none is."""
    known = [float(value) for value in values if value is not None]
    return round(statistics.fmean(known), digits or None) if known else None


@dataclass(frozen=True)
class Group:
    """The runs of a row.

    Attributes:
        table: The name of its table.
        runs: In the order of their seeds.
        campaigns: Those that hold them; several where they share a search.
        library: All runs.
    """

    table: str
    runs: Sequence[Any]
    campaigns: tuple[str, ...]
    library: Library

    @property
    def first(self) -> Run:
        """The first of the runs, for all in which they are the same."""
        run: Run = self.runs[0]
        return run

    @property
    def level(self) -> str:
        """How much the row may claim."""
        return level(self.runs, self.library)

    @property
    def block(self) -> str | None:
        """In which settings its blocks, or those of its weights, differ from those of the first records."""
        found = self.first.block
        if found is None and isinstance(self.first, DetectRun | ReidRun):
            backbone = self.library.backbone_of(self.first)
            found = backbone.block if backbone else None
        return changes(found, BLOCK) or None if found else None

    def metric(self, key: str) -> float | None:
        """The mean of a metric, as exact as it is read."""
        digits = 6 if METRICS[key].table else 1
        return mean((run.metrics.get(key) for run in self.runs), digits)

    def percent(self, key: str, what: str = "mean") -> float | None:
        """Mean or sample deviation of a share in percent."""
        values = [100 * float(run.metrics[key]) for run in self.runs if key in run.metrics]
        if what == "mean":
            return round(statistics.fmean(values), 3) if values else None
        return round(statistics.stdev(values), 3) if len(values) > 1 else None

    @property
    def seeds(self) -> tuple[str, ...]:
        """Search seed and training seed of each run, where it has both."""
        return tuple(filter(None, map(_seed, self.runs)))

    @property
    def genotypes(self) -> tuple[str, ...]:
        """The first digits of each genotype."""
        return unique(run.genotype_hash[:8] for run in self.runs if run.genotype_hash)

    def cost(self, key: str) -> float | None:
        """Mean cost, in millions or Mbit; that of a detection is the whole detector's."""
        counts = [run.cost for run in self.runs if run.cost]
        if isinstance(self.first, DetectRun):
            counts = [count.detector for count in counts if count.detector]
        return mean((total(count, key) for count in counts), 6)

    def backbone_cost(self, key: str) -> float | None:
        """The same of a detector's backbone."""
        return mean((total(run.cost, key) for run in self.runs if run.cost), 6)

    @property
    def widths(self) -> str:
        """Bits of weights and activations; of a detection the backbone's."""
        if self.first.precision == "real":
            return "32/32"
        return "1/1 + 1/32" if any(run.cost and run.cost.w1a32_macs for run in self.runs) else "1/1"

    @property
    def binary_neck(self) -> bool:
        """Whether a detector's neck is 1-bit: SSD has none, and a real-valued network none that is."""
        settings = self.first.params.get("detection", {})
        return bool(
            settings.get("binary_neck")
            and settings.get("detector") != "ssd"
            and self.first.precision == "1bit"
        )

    @cached_property
    def cells(self) -> list[Collapse]:
        """The diagnosis of each found cell."""
        return [collapse(run.genotype) for run in self.runs if run.genotype]

    @cached_property
    def searches(self) -> list[SearchRun]:
        """The searches that found the networks, each once."""
        found = (self.library.search_of(run) for run in self.runs if run.method)
        return list({id(search): search for search in found if search}.values())

    @property
    def read_back(self) -> str | None:
        """How many of these retrainings were read back from their weights, and how exactly."""
        return read_back(self.runs, self.library)

    @cached_property
    def paper(self) -> dict[str, Any]:
        """The literature's row beside it: none unless both were measured on the same data set.

        The numbers beside a search are those of the network that the method found, retrained, with a note on it.
        """
        first, search = self.first, self.table == "search"
        if self.table != "cost" and first.data_kind != "paper":
            return {}
        data = None if self.table in ("search", "cost") else dataset_names()[first.data.name]
        what = (first.family, None if search else first.task, first.precision)
        row = counterpart(self.table, *what, data) or {}
        if row and search:
            words = (f"accuracy after retraining on {row['dataset']}", row.get("note"))
            row = {**row, "note": "; ".join(filter(None, words))}
        return row


def _seed(run: Run) -> str:
    if run.stage == "cost":
        return "" if run.search_seed is None else str(run.search_seed)
    if run.stage == "search" or run.search_seed is None:
        return str(run.seed)
    return f"{run.search_seed}:{run.seed}"


def total(cost: Totals, key: str) -> float:
    """A total in the unit of the tables: ``bops_M`` is in millions, ``mbit`` as counted."""
    return float(getattr(cost, key.removesuffix("_M"))) / (1e6 if key.endswith("_M") else 1)


def read_back(trainings: Sequence[Any], library: Library) -> str | None:
    """How many of some retrainings were read back by the stage ``evaluate``, and how exactly; None: not one.

    Returns:
        Such as ``2 of 2 exact``, or ``1 of 2, other machine, largest difference: accuracy 0.05 points, loss 0.0021``.
    """
    pairs = [(run, again) for run in trainings if (again := library.evaluation_of(run)) is not None]
    if not pairs:
        return None
    machine = [] if all(again.same_machine for _, again in pairs) else ["other machine"]
    count = f"{len(pairs)} of {len(trainings)}"
    largest = {
        key: max(
            abs(float(run.metrics.get(key, 0.0)) - float(again.metrics.get(key, 0.0))) for run, again in pairs
        )
        for key in ("accuracy", "top5", "loss")
    }
    if not any(largest.values()):
        return ", ".join([f"{count} exact", *machine])
    words = f"accuracy {100 * largest['accuracy']:.2f} points, loss {largest['loss']:.2g}"
    return ", ".join([count, *machine, f"largest difference: {words}"])
