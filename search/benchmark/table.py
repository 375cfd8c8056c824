"""The benchmark's table: what each architecture reached, by seed, as Child and as Parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, Literal

from search.benchmark.names import choices_of, describe, genotype_of, parse
from search.errors import InputError
from search.files import read_csv, read_json
from search.genotype import Genotype
from search.space import Space

Precision = Literal["child", "parent"]
PRECISIONS: tuple[Precision, ...] = ("child", "parent")
FOLDER = Path(__file__).parent / "data"
COLUMNS = ("architecture", "precision", "seed", "validation", "test", "loss", "seconds", "epochs")
"""Columns of ``runs.csv``, one training a row; see data/README.md."""


@dataclass(frozen=True)
class Run:
    """One training of one architecture.

    Attributes:
        seed: Decides initial weights and the order of the images.
        validation, test: Accuracy after the last epoch, in [0, 1].
        loss: Training loss of the last epoch.
        seconds: Of the training, without evaluation.
        epochs: Validation accuracy after every epoch; empty where only the last was measured.
    """

    seed: int
    validation: float
    test: float
    loss: float
    seconds: float
    epochs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Results:
    """All trainings of one architecture in one precision, in the order of their seeds; never none."""

    runs: tuple[Run, ...]

    @property
    def validation(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return fmean(run.validation for run in self.runs)

    @property
    def test(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return fmean(run.test for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test accuracy over seeds; None with one seed."""
        return stdev(run.test for run in self.runs) if len(self.runs) > 1 else None

    def seed(self, seed: int) -> Run:
        """The training with this seed.

        Raises:
            InputError: If it was not run.
        """
        for run in self.runs:
            if run.seed == seed:
                return run
        raise InputError(f"seed {seed} was not run", allowed=", ".join(str(run.seed) for run in self.runs))


@dataclass(frozen=True)
class Entry:
    """An architecture of the benchmark.

    Attributes:
        architecture: Its line of text, such as ``skip|sep3|max|sep3|dil3``.
        choices: Its operations as indices into the space's.
        space: The space.
        child, parent: What it reached in one bit, and real-valued.
        cost: Parameters, BOPs, FLOPs, OPs and Mbit of ``cost.csv`` by column, such as ``child_ops_strict``.
    """

    architecture: str
    choices: tuple[int, ...]
    space: Space
    child: Results
    parent: Results
    cost: Mapping[str, float]

    @property
    def genotype(self) -> Genotype:
        """As the rest of the suite takes it."""
        return genotype_of(self.choices, self.space)

    def indicator(self, beta_p: float, seed: int = 0) -> float:
        """z = beta_P (A_P - A_C) + A_C (4.15) of the validation accuracies of one seed."""
        child, parent = self.child.seed(seed).validation, self.parent.seed(seed).validation
        return beta_p * (parent - child) + child


class Benchmark(Mapping[str, Entry]):
    """A finished table; keys are lines of text, in the order of :meth:`search.space.Space.choices`.

    Args:
        entries: Architectures by their text.
        card: The data card: space, recipe, machines, versions.
    """

    def __init__(self, entries: Mapping[str, Entry], card: Mapping[str, Any]) -> None:
        self.entries, self.card = MappingProxyType(dict(entries)), card
        self.space = Space.from_dict(card["space"])

    @classmethod
    def load(cls, name: str | Path = "small") -> Benchmark:
        """A table that ships with the suite, by name, or a folder of one's own.

        Architectures that were not trained both as Child and as Parent are left out.

        Raises:
            InputError: If there is no such table, or its files are damaged.
        """
        folder = Path(name) if Path(name).is_dir() else FOLDER / name
        if not (folder / "card.json").exists():
            found = sorted(path.parent.name for path in FOLDER.glob("*/card.json"))
            raise InputError(
                f"no benchmark {str(name)!r}",
                allowed=", ".join(found) or "none is finished yet",
                where=FOLDER,
            )
        card = read_json(folder / "card.json")
        space = Space.from_dict(card["space"], f"{folder / 'card.json'}, space")
        runs = read_runs(folder / "runs.csv")
        costs = read_costs(folder / "cost.csv") if (folder / "cost.csv").exists() else {}
        entries = {}
        for choices in space.choices():
            text = describe(choices, space)
            child, parent = (runs.get((text, precision)) for precision in PRECISIONS)
            if child and parent:
                entries[text] = Entry(
                    text, choices, space, Results(tuple(child)), Results(tuple(parent)), costs.get(text, {})
                )
        return cls(entries, card)

    def __getitem__(self, text: str) -> Entry:
        """The architecture of a line of text; an unknown one is an :class:`InputError` that names the nearest."""
        parse(text, self.space)
        if text not in self.entries:
            raise InputError(f"{text!r} was not trained", mend="run: python -m pipelines.benchmark run")
        return self.entries[text]

    def __contains__(self, text: object) -> bool:
        return text in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def complete(self) -> bool:
        """Whether every architecture of the space is there."""
        return len(self) == self.space.size

    def query(self, genotype: Genotype) -> Entry:
        """The architecture of a genotype.

        Raises:
            InputError: If it is not of this space, or was not trained.
        """
        return self[describe(choices_of(genotype, self.space), self.space)]

    @cached_property
    def _order(self) -> dict[Precision, list[str]]:
        return {
            precision: sorted(self.entries, key=lambda text: -getattr(self.entries[text], precision).test)
            for precision in PRECISIONS
        }

    def best(self, count: int = 1, precision: Precision = "child") -> list[Entry]:
        """The architectures with the highest mean test accuracy, the best first; of equals the first in the table."""
        return [self.entries[text] for text in self._order[precision][:count]]

    def rank(self, entry: Entry, precision: Precision = "child") -> int:
        """Its place by mean test accuracy, from 1."""
        return 1 + self._order[precision].index(entry.architecture)

    def regret(self, entry: Entry) -> float:
        """How much test accuracy the best Child has more, in [0, 1], by other seeds than the one that named the best.

        With seed 0 alone the best of a thousand is luck too. Where the best Child has further seeds, its mean over
        those stands for it, and the entry's mean over its own further seeds where it has some.
        """
        return _unbiased(self.best()[0].child) - _unbiased(entry.child)


def _unbiased(results: Results) -> float:
    later = [run.test for run in results.runs if run.seed != 0]
    return fmean(later) if later else results.test


def read_runs(path: Path) -> dict[tuple[str, str], list[Run]]:
    """``runs.csv`` as trainings by (architecture, precision), sorted by seed.

    Raises:
        InputError: With the line that is no training.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for number, row in enumerate(read_csv(path), start=2):
        try:
            epochs = tuple(float(value) for value in row["epochs"].split(";") if value)
            validation, test, loss, seconds = (
                float(row[name]) for name in ("validation", "test", "loss", "seconds")
            )
            run = Run(int(row["seed"]), validation, test, loss, seconds, epochs)
            key = (row["architecture"], row["precision"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"line {number} is no training", where=path, allowed=f"the columns {', '.join(COLUMNS)}"
            ) from None
        found.setdefault(key, []).append(run)
    for runs in found.values():
        runs.sort(key=lambda run: run.seed)
    return found


def read_costs(path: Path) -> dict[str, dict[str, float]]:
    """``cost.csv`` as numbers by architecture and column."""
    return {
        row.pop("architecture"): {key: float(value) for key, value in row.items() if value}
        for row in read_csv(path)
    }
