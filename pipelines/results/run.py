"""The run record: one typed model that stage programs write, ``collect`` checks, tables read and tests build.

Each kind of stage has its own subclass of :class:`Run`. Every name has a strict pattern, since names become folders,
file names and identifiers in pages; other text may say anything that can be shown in a line.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)

from pipelines.results.defaults import with_defaults
from pipelines.results.literature import dataset_names
from pipelines.results.metrics import METRICS, Unit
from pipelines.results.values import Amount, Count, DatasetName, Hash, Key, Name, Plain, Text, plain
from search.files import read_csv, sha256_json
from search.genotype import Genotype

DataKind = Literal["paper", "other", "stand-in"]
UNSETTLED = frozenset({"profile", "seed", "seeds", "workers", "log_every"})
"""Settings that do not make two runs different experiments."""
RUN_FILE, NETWORK_FILE = "run.json", "network.json"
FILES = ("metrics", "params", "provenance", "cost")
"""Parts of a run that have a file of their own; all else stands in run.json."""
PICTURE_SUFFIXES = (".svg", ".png", ".jpg")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Open(_Part):
    """May hold more than is named here: any plain value."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _extras(self) -> _Open:
        plain(self.__pydantic_extra__)
        return self


class Dataset(_Open):
    """What a run was trained or measured on, with further counts of images, boxes or identities."""

    name: DatasetName
    stand_in: bool
    note: Text = ""
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    train_images: Count | None = None
    test_images: Count | None = None
    validation_images: Count | None = None


class Code(_Open):
    """The commit that ran, None outside a checkout."""

    commit: str | None = Field(None, pattern=r"^[0-9a-f]{7,64}$")
    dirty: bool | None = None


class Provenance(_Open):
    """See :func:`pipelines.provenance.provenance`; what tables show of it is named here."""

    code: Code = Code()
    cpu: Text | None = None
    gpu: Text | None = None
    threads: Count | None = None
    processes: Count = 1
    wall_seconds: Amount = 0.0
    cpu_seconds: Amount | None = None

    @property
    def commit(self) -> str:
        """The first 8 digits of the code commit, with ``+`` if the tree had uncommitted changes."""
        return f"{self.code.commit[:8]}{'+' if self.code.dirty else ''}" if self.code.commit else "unknown"

    @property
    def hardware(self) -> str:
        """The GPU if one was used, otherwise the CPU with its number of threads."""
        if self.gpu:
            return self.gpu
        words = f", {self.threads} thread{'' if self.threads == 1 else 's'}" if self.threads else ""
        return (self.cpu or "unknown") + words


class Totals(_Open):
    """Counted cost of a network, see :mod:`search.cost`."""

    params: Count | None = None
    bops: Amount
    w1a32_macs: Amount
    flops: Amount
    ops_strict: Amount
    ops_generous: Amount
    mbit: Amount


class Cost(Totals):
    """Of a network at an input size; of a detection the backbone's, with the whole detector's beside it."""

    input: Count | list[Count] | None = None
    detector: Totals | None = None


class Weights(_Open):
    """The weights that a run started from."""

    weights_hash: Hash | None = None


class Run(_Part):
    """One finished run.

    Attributes:
        stage: The stage that made it: the kind of the record.
        key: Its folder below that stage's.
        network: The network's name with its search seed, such as ``cp_nas-s0``.
        method: The search method that found the network; None for a hand-made or published one.
        form: Layer order of a genotype's operations; None for a hand-made network.
        seed: Of this run: of its training, or of the search.
        metrics: See :data:`pipelines.results.metrics.METRICS`.
        params: The sections of params.yaml that decided the run.
        campaign: The folder of results/records/ that holds it.
        folder: Where its files lie.
        label: What tables and figures call the method, its variant or the network.
        recorded: The files as they were read, before an older version was lifted.
    """

    model_config = ConfigDict(extra="forbid")
    needed: ClassVar[tuple[str, ...]] = ()

    schema_: int = Field(alias="schema")
    stage: str
    key: Key
    network: Name
    method: Name | None
    variant: Name | None
    precision: Literal["1bit", "real"]
    form: Name | None
    seed: Count
    task: Name
    dataset: Dataset | None
    paper_scale: bool
    architecture_hash: Hash | None
    genotype_hash: Hash | None
    metrics: Annotated[dict[str, float], PlainValidator(plain)]
    params: Plain
    provenance: Provenance
    cost: Cost | None = None

    campaign: str = Field("", exclude=True)
    folder: Path = Field(Path(), exclude=True)
    label: str = Field("", exclude=True)
    recorded: dict[str, Any] = Field({}, exclude=True)

    @field_validator("metrics")
    @classmethod
    def _measured(cls, metrics: dict[str, float]) -> dict[str, float]:
        if not isinstance(metrics, dict):
            raise ValueError("an object was expected")
        for key in cls.needed:
            if key not in metrics:
                raise ValueError(f"the metric {key!r} is missing; allowed: {', '.join(cls.needed)}")
        for key, value in metrics.items():
            if key not in METRICS:
                raise ValueError(f"unknown metric {key!r}; declare it in pipelines/results/metrics.py")
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{key} is {value!r}; allowed: a finite number")
            unit = METRICS[key].unit
            if (unit is Unit.SHARE and not 0 <= value <= 1) or (unit is Unit.EXCESS and value > 1):
                raise ValueError(f"{key} is {value!r}; allowed: a {unit.value}")
        return metrics

    @model_validator(mode="after")
    def _data(self) -> Run:
        if self.dataset is None and self.stage != "cost":  # a cost is counted, not measured on data
            raise ValueError("dataset.name is missing")
        return self

    @property
    def data(self) -> Dataset:
        """The data set of a run that has one."""
        assert self.dataset is not None
        return self.dataset

    @property
    def is_base(self) -> bool:
        """Whether a search method's base form was run, with the settings under its own name in params.yaml."""
        return self.method is not None and self.variant == self.method

    @property
    def family(self) -> str:
        """What a table's row is about: the variant of a method, or a hand-made or published network."""
        return self.variant or self.network

    @property
    def found_network(self) -> str:
        """The network without the variant of the retraining, which may stand behind its name as ``--VARIANT``."""
        return self.network.partition("--")[0]

    @property
    def search_seed(self) -> int | None:
        """The seed of the search that found the network; None for a hand-made or published one."""
        if self.method is None:
            return None
        tail = self.found_network.rpartition("-s")[2]
        return int(tail) if tail.isdigit() else None

    @property
    def data_kind(self) -> DataKind:
        """What its numbers compare with: measured on a data set of the papers, on other data, or on a stand-in.

        Papers' data sets are those named under ``datasets`` in literature.yaml; a network's cost has no data: other.
        """
        if self.dataset is None:
            return "other"
        return "stand-in" if self.data.stand_in else "paper" if self.data.name in dataset_names() else "other"

    @property
    def block(self) -> dict[str, Any] | None:
        """What of a genotype's blocks its form leaves open; None: as in the weights it started from, or no genotype."""
        params = with_defaults(self.params)
        own = params.get("retrain", {}).get(self.task, {}).get("network", {})
        part = params.get("space") or params.get("detection") or params.get("reid") or own
        return part.get("block") if self.genotype_hash and isinstance(part, dict) else None

    @cached_property
    def settings(self) -> str:
        """Short hash of the settings that make this run the experiment it is (seeds and workers apart)."""
        return settings_hash(self.params)

    @cached_property
    def identity(self) -> str:
        """The same for every copy of this run in another campaign: hash of what it is, ran on and measured."""
        return sha256_json(self.recorded or self.files())

    @cached_property
    def genotype(self) -> Genotype | None:
        """The architecture, where one was recorded."""
        path = self.folder / "genotype.json"
        return Genotype.load(path) if path.exists() else None

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of one of its CSV files, such as ``history.csv``; none where it has no such file."""
        path = self.folder / name
        return read_csv(path) if path.exists() else []

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """One row a draw or epoch; empty where the run has none."""
        return self.table("history.csv")

    @property
    def pictures(self) -> list[Path]:
        """The recorded pictures, sorted by name."""
        return sorted(
            path for path in (self.folder / "pictures").glob("*") if path.suffix in PICTURE_SUFFIXES
        )

    def files(self) -> dict[str, Any]:
        """The JSON files of the record by name without suffix."""
        values = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        own = {key: values.pop(key, None) for key in FILES}
        return {"run": values} | {key: value for key, value in own.items() if value is not None}


class SearchRun(Run):
    """A search with one method or variant and one seed."""

    stage: Literal["search"]
    method: Name
    needed: ClassVar[tuple[str, ...]] = ("val_accuracy", "epochs", "images_seen", "seconds")

    @property
    def search_seed(self) -> int:
        """Its own seed."""
        return self.seed

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """One row a draw or epoch. Where whole networks are drawn there is no Child, though older code wrote one."""
        rows = self.table("history.csv")
        if not rows or "architecture" not in rows[0]:
            return rows
        return [{key.removesuffix("_child"): value for key, value in row.items()} for row in rows]

    @cached_property
    def rounds(self) -> list[dict[str, str]]:
        """One row an elimination; empty for other searches."""
        return self.table("rounds.csv")


class CostRun(Run):
    """The counted cost of a network at one input size."""

    stage: Literal["cost"]
    cost: Cost


class RetrainRun(Run):
    """A network trained from scratch on the classes of its task."""

    stage: Literal["retrain"]
    weights_hash: Hash | None = None
    teacher_hash: Text | None = None
    compute: Plain = {}
    needed: ClassVar[tuple[str, ...]] = ("accuracy", "epochs", "images_seen", "seconds")


class EvaluateRun(Run):
    """Exported weights read back and evaluated again."""

    stage: Literal["evaluate"]
    weights_hash: Hash | None = None
    compute: Plain = {}
    same_machine: bool = False
    needed: ClassVar[tuple[str, ...]] = ("accuracy", "loss", "images", "recorded_accuracy")


class DetectRun(Run):
    """A detector on a retrained backbone."""

    stage: Literal["detect"]
    weights: Weights | None = None
    operators: Text = ""
    needed: ClassVar[tuple[str, ...]] = (
        *("coco_map", "coco_map50", "voc_map50", "untrained_coco_map50"),
        "seconds",
    )


class ReidRun(Run):
    """Retrieval with a retrained backbone, or with a network of the zoo."""

    stage: Literal["reid"]
    weights: Weights | None = None
    needed: ClassVar[tuple[str, ...]] = ("rank1", "map", "untrained_rank1", "untrained_map", "seconds")


class NetworkFile(_Part):
    """``network.json``: a network that the chain passes on."""

    model_config = ConfigDict(extra="forbid")

    schema_: int = Field(alias="schema")
    name: Name
    method: Name | None
    seed: Count | None
    kind: Literal["genotype", "published", "handmade"]
    network: Name
    genotype_hash: Hash | None


STAGES = ("search", "cost", "retrain", "evaluate", "detect", "reid")
AnyRun = Annotated[
    SearchRun | CostRun | RetrainRun | EvaluateRun | DetectRun | ReidRun, Field(discriminator="stage")
]


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
