"""params.yaml as typed, checked settings: an unknown key or a wrong type is one clear line."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from downstream.classification.settings import RetrainSettings
from downstream.detection.settings import DetectionSettings
from downstream.handmade import NAMES as HANDMADE
from downstream.reid.settings import ReidSettings
from pipelines import settings_file
from pipelines.datasets.settings import Cifar10Source, ImageFolderData, ReidData, SceneData
from search.errors import InputError, nearest
from search.methods import METHODS, SearchSettings, keys_of
from search.settings import Distinct, Name, Seed, Settings
from search.strategies.base import SearchSpaceSettings
from search.style import NO_BLOCK
from search.training import ComputeSettings

PARAMS = Path("params.yaml")
TASKS = ("cifar10", "imagenet", "detection", "reid")
TRANSFER = ("detection", "reid")
"""Tasks that may start from the weights of the ImageNet-style retraining."""


class DataSettings(Settings):
    """Where the data of each task comes from."""

    cifar10: Cifar10Source
    imagenet: ImageFolderData
    detection: SceneData
    reid: ReidData


class RunSettings(Settings):
    """Which networks a stage trains: every combination is one run.

    Attributes:
        networks: Names of found networks (``cp_nas-s0``: variant and seed of the search); none: the stage is left out.
        precisions: ``1bit`` (the Child) and ``real`` (its full-precision twin).
        seeds: Seeds of the training.
    """

    networks: Distinct[Name]
    precisions: Distinct[Literal["1bit", "real"]] = Field(min_length=1)
    seeds: Distinct[Seed] = Field(min_length=1)


class RetrainTasks(Settings):
    """The two classification tasks."""

    cifar10: RetrainSettings
    imagenet: RetrainSettings


class ZooSettings(Settings):
    """Re-identification networks of Torchreid's zoo, trained from nothing beside ours.

    Attributes:
        networks: OSNets, such as ``osnet_x0_25``; none: the stage is left out.
        seeds: Seeds of the training.
    """

    networks: Distinct[Annotated[str, Field(pattern=r"^osnet_[a-z0-9_]+$", max_length=64)]]
    seeds: Distinct[Seed] = Field(min_length=1)


class RunsSettings(Settings):
    """The runs of every stage after the search.

    Attributes:
        adopted: Published and hand-made networks that join the chain under their own names.
        cost: Networks whose cost is counted.
        reid_zoo: Networks of Torchreid that re-identification is compared with.
    """

    adopted: Distinct[Name]
    cost: Distinct[Name]
    cifar10: RunSettings
    imagenet: RunSettings
    detection: RunSettings
    reid: RunSettings
    reid_zoo: ZooSettings


class Params(Settings):
    """The whole of params.yaml.

    Attributes:
        profile: Name of the profile; results are kept under it.
        paper_scale: Whether the profile is meant to be the papers' scale (decides a result's level).
        compute: Device, precision, threads.
        data: Where the data of each task comes from.
        search: Methods and their variants, seeds, space.
        runs: Which networks are trained where.
        retrain: Recipes of the two classification tasks.
        detection: Recipe of the detectors.
        reid: Recipe of person re-identification.
    """

    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
    paper_scale: bool
    compute: ComputeSettings
    data: DataSettings
    search: SearchSettings
    runs: RunsSettings
    retrain: RetrainTasks
    detection: DetectionSettings
    reid: ReidSettings

    @model_validator(mode="after")
    def _networks_exist(self) -> Params:
        """Every run names a network that the search or ``runs.adopted`` gives, and transfer only what is retrained."""
        for name in self.search.methods:
            if name not in self.search.method:
                hint = nearest(name, self.search.method)
                raise ValueError(
                    f"search.methods names {name!r}"
                    + (f", did you mean {hint!r}?" if hint else "")
                    + f"; search.method has: {', '.join(self.search.method)}"
                )
        known = {f"{method}-s{seed}" for method in self.search.methods for seed in self.search.seeds}
        known |= set(self.runs.adopted)
        named = {"runs.cost": self.runs.cost} | {
            f"runs.{task}.networks": getattr(self.runs, task).networks for task in TASKS
        }
        for key, networks in named.items():
            for network in networks:
                if network not in known:
                    raise ValueError(f"{key} names {network!r}; known: {', '.join(sorted(known))}")
        for task, recipe in self.retrain:
            for network in getattr(self.runs, task).networks:
                if not recipe.knows(network):
                    raise ValueError(f"runs.{task} names {network!r}, which retrain.{task}.variants has not")
        for task in TRANSFER:
            settings, networks = getattr(self, task), getattr(self.runs, task).networks
            for name in networks if not settings.pretrained and settings.block is None else ():
                if name not in HANDMADE:
                    raise ValueError(f"{task}.{NO_BLOCK} ({name} has no block of its own)")
            for key in self.untrained(task) if settings.pretrained else ():
                raise ValueError(
                    f"runs.{task} needs the weights of {key}, which runs.imagenet does not train; "
                    f"train it there, or set {task}.pretrained: false"
                )
        return self

    def untrained(self, task: str) -> list[str]:
        """Keys of a transfer task's runs that ``runs.imagenet`` trains no weights for."""
        retrained = set(self.keys("imagenet"))
        return [key for key in self.keys(task) if key not in retrained]

    def keys(self, task: str) -> list[str]:
        """Keys ``<network>-<precision>-s<seed>`` of a task's runs: cifar10, imagenet, detection or reid."""
        runs: RunSettings = getattr(self.runs, task)
        return [
            f"{network}-{precision}-s{seed}"
            for network in runs.networks
            for precision in runs.precisions
            for seed in runs.seeds
        ]

    def folders(self) -> list[Path]:
        """The output folders of all runs of this profile below ``runs/``, in the order of the graph."""
        found = [f"{method}-s{seed}" for method in self.search.methods for seed in self.search.seeds]
        zoo = self.runs.reid_zoo
        return [
            *(Path("search") / name for name in found),
            *(Path("networks") / name for name in (*found, *self.runs.adopted)),
            *(Path("cost") / name for name in self.runs.cost),
            *(Path("retrain/cifar10") / key for key in self.keys("cifar10")),
            *(Path("retrain/imagenet") / key for key in self.keys("imagenet")),
            *(Path("evaluate/cifar10") / key for key in self.keys("cifar10")),
            *(Path("evaluate/imagenet") / key for key in self.keys("imagenet")),
            *(Path("detect") / key for key in self.keys("detection")),
            *(Path("reid") / key for key in self.keys("reid")),
            *(Path("reid") / f"{name}-real-s{seed}" for name in zoo.networks for seed in zoo.seeds),
        ]


def load(path: str | Path = PARAMS) -> Params:
    """Read and check a params file; one with ``base: PROFILE`` is completed as a profile is.

    DVC itself reads params.yaml alone: for ``dvc repro`` it must be complete, as ``pipelines.profile use`` writes it.

    Raises:
        InputError: Names the key, the file and the nearest valid key.
    """
    from pipelines import layers

    return check(layers.completed(read(path), Path(path)), path)


def read(path: str | Path) -> dict[str, Any]:
    """The values of a params file, unchecked.

    Raises:
        InputError: If there is no such file, or it is no mapping in YAML; see :mod:`pipelines.settings_file`.
    """
    return settings_file.read(path, missing="run: python -m pipelines.profile use quick")


def check(values: dict[str, Any], where: str | Path) -> Params:
    """Check the values of a params file."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise _first(error, values, where) from None


def _first(error: ValidationError, values: dict[str, Any], where: str | Path) -> InputError:
    """The first thing that is wrong: unknown keys before all, since they explain a missing one."""
    details = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    detail = details[0]
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _fields(path[:-1], values)
        hint = nearest(path[-1], known)
        return InputError(
            f"unknown key {key!r}" + (f", did you mean {hint!r}?" if hint else ""),
            where=where,
            allowed=", ".join(sorted(known)),
        )
    if detail["type"] == "missing":
        return InputError(f"the key {key!r} is missing", where=where)
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return InputError(f"{key}: {message}" if key else message, where=where)
    return InputError(f"{key} is {_shown(detail['input'])}: {message[:1].lower()}{message[1:]}", where=where)


def _shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def _fields(path: list[str], values: dict[str, Any]) -> list[str]:
    """The keys that are known at a place of params.yaml; none where it has no fixed keys."""
    model: type[BaseModel] = Params
    if path[:2] == ["search", "method"] and len(path) > 2:
        name, entry = path[2], values["search"]["method"][path[2]]
        if len(path) == 3:
            return keys_of(name, entry)
        inside = path[3] == "space"
        model = SearchSpaceSettings if inside else METHODS[entry.get("method", name)].settings
        path = path[4:] if inside else path[3:]
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return []
        model = field.annotation
    return list(model.model_fields)
