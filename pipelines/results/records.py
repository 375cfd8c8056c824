"""Run records: the small files of a finished run, as the tables read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipelines.results.columns import METHOD_NAMES
from pipelines.results.defaults import as_run, with_defaults
from pipelines.results.literature import dataset_names
from pipelines.results.variants import changes
from search.errors import InputError
from search.files import read_csv, read_json, sha256_json
from search.genotype import Genotype

SCHEMA = 1
STAGES = ("search", "cost", "retrain", "evaluate", "detect", "reid")
RUN_FILE = "run.json"
NETWORK_FILE = "network.json"
DataKind = Literal["paper", "other", "stand-in"]
UNSETTLED = frozenset({"profile", "seed", "seeds", "workers", "log_every"})
"""Keys of params.json that do not make two runs different experiments."""


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        folder: Where its files lie.
        profile: The campaign it belongs to (``quick``, ``paper``, or a name given to ``collect add``).
        run, metrics, params, provenance: The JSON files of these names.
        cost: The object of ``pipelines.cost`` for this network and input size, or None.
        label: What tables and figures call the method, its variant or the network.
    """

    folder: Path
    profile: str
    run: dict[str, Any]
    metrics: dict[str, float]
    params: dict[str, Any]
    provenance: dict[str, Any]
    cost: dict[str, Any] | None = field(default=None)
    label: str = field(default="")

    @property
    def stage(self) -> str:
        """search, cost, retrain, evaluate, detect or reid."""
        return str(self.run["stage"])

    @property
    def network(self) -> str:
        """The network's name with its search seed, such as ``cp_nas-s0``."""
        return str(self.run["network"])

    @property
    def method(self) -> str | None:
        """The search method that found the network; None for a hand-made or published one."""
        method = self.run.get("method")
        return None if method is None else str(method)

    @property
    def variant(self) -> str | None:
        """The method's variant, from a network's name ``<variant>-s<seed>``; the method's own name: its base form."""
        if self.method is None:
            return None
        return str(self.run.get("variant") or self.network.rpartition("-s")[0] or self.method)

    @property
    def is_base(self) -> bool:
        """Whether a search method's base form was run, with the settings under its own name in params.yaml."""
        return self.method is not None and self.variant == self.method

    @property
    def family(self) -> str:
        """What a table's row is about: the variant of a method, or a hand-made or published network."""
        return self.variant or self.network

    @property
    def seed(self) -> int:
        """The seed of this run (of training, or of the search)."""
        return int(self.run["seed"])

    @property
    def search_seed(self) -> int | None:
        """The seed of the search that found the network; None for a hand-made or published one."""
        if self.method is None:
            return None
        if self.stage == "search":
            return self.seed
        tail = self.network.rpartition("-s")[2]
        return int(tail) if tail.isdigit() else None

    @property
    def dataset(self) -> dict[str, Any]:
        """The data set's name, whether it is a stand-in, its counts and hash; empty for a network's cost."""
        return dict(self.run["dataset"] or {})

    @property
    def form(self) -> str | None:
        """Layer order of a genotype's operations; None for a hand-made network, whatever older code recorded."""
        return self.run.get("form") if self.run.get("genotype_hash") else None

    @property
    def stand_in(self) -> bool:
        """Whether the numbers were measured on a stand-in data set."""
        return bool(self.dataset.get("stand_in", False))

    @property
    def data_kind(self) -> DataKind:
        """What its numbers compare with: measured on a data set of the papers, on other data, or on a stand-in.

        Papers' data sets are those named under ``datasets`` in literature.yaml; a network's cost has no data: other.
        """
        if self.stand_in:
            return "stand-in"
        return "paper" if self.dataset.get("name") in dataset_names() else "other"

    @property
    def settings(self) -> str:
        """Short hash of the settings that make this run the experiment it is (seeds and workers apart)."""
        return settings_hash(as_run(self.params, self.run))

    @property
    def identity(self) -> str:
        """The same for every copy of this run in another campaign: hash of what it is, ran on and measured."""
        return sha256_json([self.run, self.metrics, self.params, self.provenance])

    @cached_property
    def genotype(self) -> Genotype | None:
        """The architecture, where one was recorded."""
        path = self.folder / "genotype.json"
        return Genotype.load(path) if path.exists() else None

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """One row a draw, round or epoch; empty where the run has none."""
        path = self.folder / "history.csv"
        return read_csv(path) if path.exists() else []

    @cached_property
    def rounds(self) -> list[dict[str, str]]:
        """One row a round of a search by elimination; empty for other runs."""
        path = self.folder / "rounds.csv"
        return read_csv(path) if path.exists() else []

    @property
    def pictures(self) -> list[Path]:
        """The recorded pictures, sorted by name."""
        return sorted(
            path for path in (self.folder / "pictures").glob("*") if path.suffix in (".svg", ".png", ".jpg")
        )


def settings_hash(params: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    """Eight hex digits of the settings, later keys filled in; ``without``: dotted keys to leave out (a claim's)."""

    def strip(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            key: strip(inner, f"{path}{key}.")
            for key, inner in value.items()
            if key not in UNSETTLED and f"{path}{key}" not in without
        }

    return sha256_json(strip(with_defaults(params), ""))[:8]


def read_record(folder: Path, profile: str) -> Record:
    """Read one run folder (not its histories, which are read when asked for)."""
    cost = folder / "cost.json"
    return Record(
        folder=folder,
        profile=profile,
        run=read_json(folder / RUN_FILE),
        metrics=read_json(folder / "metrics.json"),
        params=read_json(folder / "params.json"),
        provenance=read_json(folder / "provenance.json"),
        cost=read_json(cost) if cost.exists() else None,
    )


def read_records(root: str | Path) -> list[Record]:
    """Every record under ``results/records``, named, in a fixed order: profile, then path.

    Raises:
        InputError: If there is no record at all, or one cannot be read.
    """
    top = Path(root)
    records = [
        read_record(file.parent, profile.name)
        for profile in sorted(path for path in top.glob("*") if path.is_dir())
        for file in sorted(profile.rglob(RUN_FILE))
    ]
    if not records:
        raise InputError(
            "no run records here", where=top, mend="run `dvc repro`, or `python -m pipelines.collect`"
        )
    labels = labels_of(records)
    return [replace(record, label=labels[record.profile, record.family]) for record in records]


def labels_of(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """What tables call each profile's methods, variants and networks, by profile and :attr:`Record.family`.

    A variant is called by its method and what it changes against the base form in the same campaign, such as
    ``CP-NAS, beta_p 0``; without a base form there, by its own name.
    """
    searches = {(r.profile, r.family): r for r in records if r.stage == "search"}
    labels = {}
    for record in records:
        key = (record.profile, record.family)
        name = METHOD_NAMES.get(record.method or record.family, record.family)
        if record.method is not None and not record.is_base:
            search, base = searches.get(key), searches.get((record.profile, record.method))
            words = changes(search.params, base.params) if search and base else ""
            name = f"{name}, {words or record.variant}"
        labels[key] = name
    return labels


@dataclass(frozen=True)
class Library:
    """All records, and the look-ups from one run to the runs it was built on."""

    records: tuple[Record, ...]

    def of(self, stage: str) -> list[Record]:
        """The records of a stage, in their fixed order."""
        return [record for record in self.records if record.stage == stage]

    def distinct(self, stage: str | None = None) -> list[tuple[Record, tuple[str, ...]]]:
        """The runs (of a stage), each once, with the campaigns that hold it, both in their fixed order.

        A campaign that builds on another one's search holds a copy of that record.
        """
        found: dict[str, list[Record]] = {}
        for record in self.records if stage is None else self.of(stage):
            found.setdefault(record.identity, []).append(record)
        return [(copies[0], tuple(copy.profile for copy in copies)) for copies in found.values()]

    def search_of(self, record: Record) -> Record | None:
        """The search that found the record's network, in the same campaign and with the same genotype."""
        for other in self.of("search"):
            same = other.profile == record.profile and other.run["network"] == record.network
            if same and other.run.get("genotype_hash") == record.run.get("genotype_hash"):
                return other
        return None

    def backbone_of(self, record: Record) -> Record | None:
        """The ImageNet retraining whose weights a detection or re-identification run started from.

        Told by the hash of the weights, in whichever campaign; where an older record has none, by campaign, network,
        precision and seed.
        """
        wanted = (record.run.get("weights") or {}).get("weights_hash")
        for other in self.of("retrain"):
            if other.run["task"] != "imagenet":
                continue
            same = all(other.run[key] == record.run[key] for key in ("network", "precision", "seed"))
            if (
                other.run.get("weights_hash") == wanted
                if wanted
                else same and other.profile == record.profile
            ):
                return other
        return None
