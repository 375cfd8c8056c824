"""Run records: the small files of a finished run, as the tables read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from search.errors import InputError
from search.files import read_csv, read_json, sha256_json
from search.genotype import Genotype

SCHEMA = 1
STAGES = ("search", "cost", "retrain", "detect", "reid")
RUN_FILE = "run.json"
NETWORK_FILE = "network.json"
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
    """

    folder: Path
    profile: str
    run: dict[str, Any]
    metrics: dict[str, float]
    params: dict[str, Any]
    provenance: dict[str, Any]
    cost: dict[str, Any] | None = field(default=None)

    @property
    def stage(self) -> str:
        """search, cost, retrain, detect or reid."""
        return str(self.run["stage"])

    @property
    def network(self) -> str:
        """The network's name with its search seed, such as ``cp_nas-s0``."""
        return str(self.run["network"])

    @property
    def family(self) -> str:
        """What a table's row is about: the search method, or the name of a hand-made or published network."""
        return str(self.run.get("method") or self.run["network"])

    @property
    def seed(self) -> int:
        """The seed of this run (of training, or of the search)."""
        return int(self.run["seed"])

    @property
    def search_seed(self) -> int | None:
        """The seed of the search that found the network; None for a hand-made or published one."""
        if not self.run.get("method"):
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
    def stand_in(self) -> bool:
        """Whether the numbers were measured on a stand-in data set."""
        return bool(self.dataset.get("stand_in", False))

    @property
    def settings(self) -> str:
        """Short hash of the settings that make this run the experiment it is (seeds and workers apart)."""
        return settings_hash(self.params)

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
    """Eight hex digits of the settings; ``without``: dotted keys to leave out (those a claim varies)."""

    def strip(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            key: strip(inner, f"{path}{key}.")
            for key, inner in value.items()
            if key not in UNSETTLED and f"{path}{key}" not in without
        }

    return sha256_json(strip(params, ""))[:8]


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
    """Every record under ``results/records``, in a fixed order: profile, then path.

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
    return records


@dataclass(frozen=True)
class Library:
    """All records, and the look-ups from one run to the runs it was built on."""

    records: tuple[Record, ...]

    def of(self, stage: str) -> list[Record]:
        """The records of a stage, in their fixed order."""
        return [record for record in self.records if record.stage == stage]

    def search_of(self, record: Record) -> Record | None:
        """The search that found the record's network, in the same campaign and with the same genotype."""
        for other in self.of("search"):
            same = other.profile == record.profile and other.run["network"] == record.network
            if same and other.run.get("genotype_hash") == record.run.get("genotype_hash"):
                return other
        return None

    def backbone_of(self, record: Record) -> Record | None:
        """The ImageNet retraining whose weights a detection or re-identification run started from."""
        for other in self.of("retrain"):
            same = all(other.run[key] == record.run[key] for key in ("network", "precision", "seed"))
            if same and other.profile == record.profile and other.run["task"] == "imagenet":
                return other
        return None
