"""What a folder must be before it counts as a run record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipelines.results.records import NETWORK_FILE, RUN_FILE, SCHEMA, STAGES
from search.errors import InputError
from search.files import read_json
from search.genotype import Genotype

SIZE_LIMIT = 300 * 1024
"""Bytes of one file of a record: records live in git."""
KEPT_SUFFIXES = (".json", ".csv")
PICTURE_SUFFIXES = (".svg", ".png", ".jpg")
RUN_KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "stage": (str,),
    "key": (str,),
    "network": (str,),
    "method": (str, type(None)),
    "precision": (str,),
    "form": (str, type(None)),
    "seed": (int,),
    "task": (str,),
    "dataset": (dict, type(None)),
    "paper_scale": (bool,),
    "architecture_hash": (str, type(None)),
    "genotype_hash": (str, type(None)),
}
OPTIONAL_KEYS: dict[str, tuple[type, ...]] = {"variant": (str,)}
"""Keys of searches that older records have not: the variant is the method's base form then."""
METRIC_KEYS = {
    "search": ("val_accuracy", "epochs", "images_seen", "seconds"),
    "cost": (),
    "retrain": ("accuracy", "epochs", "images_seen", "seconds"),
    "evaluate": ("accuracy", "loss", "images", "recorded_accuracy"),
    "detect": ("coco_map", "coco_map50", "voc_map50", "untrained_coco_map50", "seconds"),
    "reid": ("rank1", "map", "untrained_rank1", "untrained_map", "seconds"),
}
SHARES = frozenset(
    (
        "val_accuracy",
        "accuracy",
        "recorded_accuracy",
        "top5",
        "coco_map",
        "coco_map50",
        "voc_map50",
        "untrained_coco_map50",
        "untrained_voc_map50",
        "rank1",
        "rank5",
        "rank10",
        "map",
        "untrained_rank1",
        "untrained_map",
        "pixels_rank1",
        "pixels_map",
    )
)
"""Metrics that are shares, in [0, 1]."""


def record_files(folder: Path) -> list[Path]:
    """The files of a run folder that belong into a record: JSON, CSV and pictures, no weights."""
    kept = [path for path in folder.iterdir() if path.is_file() and path.suffix in KEPT_SUFFIXES]
    pictures = [path for path in (folder / "pictures").glob("*") if path.suffix in PICTURE_SUFFIXES]
    return sorted(path for path in kept + pictures if not path.name.startswith("."))


def check_record(folder: Path) -> None:
    """Check a run folder completely.

    Raises:
        InputError: Naming the file and key of the first thing that is wrong.
    """
    for path in record_files(folder):
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError(
                f"{path.stat().st_size} bytes", where=path, allowed=f"at most {SIZE_LIMIT} bytes a file"
            )
    run = _check_run(folder)
    _check_metrics(folder / "metrics.json", run["stage"])
    for name in ("params.json", "provenance.json"):
        _object(folder / name)
    _check_genotype(folder, run["genotype_hash"])
    if run["stage"] == "cost" or (folder / "cost.json").exists():
        _object(folder / "cost.json")


def check_network(folder: Path) -> None:
    """Check a derived network's folder: ``network.json``, and that a genotype has the stated hash."""
    entry = _object(folder / NETWORK_FILE)
    for key in ("schema", "name", "kind", "network"):
        if key not in entry:
            raise InputError(f"the key {key!r} is missing", where=folder / NETWORK_FILE)
    _check_genotype(folder, entry.get("genotype_hash"))


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"is a JSON {type(value).__name__}, an object was expected", where=path)
    return value


def _check_run(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    run = _object(path)
    for key in RUN_KEYS:
        if key not in run:
            raise InputError(f"the key {key!r} is missing", where=path, allowed=", ".join(RUN_KEYS))
    for key, types in (RUN_KEYS | {key: OPTIONAL_KEYS[key] for key in OPTIONAL_KEYS if key in run}).items():
        if not isinstance(run[key], types) or (isinstance(run[key], bool) and bool not in types):
            raise InputError(
                f"{key} is {run[key]!r}", where=path, allowed=" or ".join(t.__name__ for t in types)
            )
    if run["schema"] != SCHEMA:
        raise InputError(f"schema {run['schema']} is not ours", where=path, allowed=SCHEMA)
    if run["stage"] not in STAGES:
        raise InputError(f"stage {run['stage']!r} is unknown", where=path, allowed=", ".join(STAGES))
    if run["precision"] not in ("1bit", "real"):
        raise InputError(f"precision {run['precision']!r} is unknown", where=path, allowed="1bit, real")
    if not folder.as_posix().endswith(run["key"]):
        raise InputError(f"key {run['key']!r} is not the folder's name", where=path)
    if run["stage"] != "cost":  # a network's cost is counted, not measured on data
        _check_dataset(run["dataset"] or {}, path)
    return run


def _check_dataset(dataset: dict[str, Any], path: Path) -> None:
    if not isinstance(dataset.get("name"), str) or not dataset["name"]:
        raise InputError("dataset.name is missing", where=path)
    if not isinstance(dataset.get("stand_in"), bool):
        raise InputError("dataset.stand_in is missing", where=path, allowed="true or false")


def _check_metrics(path: Path, stage: str) -> None:
    metrics = _object(path)
    for key in METRIC_KEYS[stage]:
        if key not in metrics:
            raise InputError(
                f"the metric {key!r} is missing", where=path, allowed=", ".join(METRIC_KEYS[stage])
            )
    for key, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{key} is {value!r}", where=path, allowed="a finite number")
        if key in SHARES and not 0 <= value <= 1:
            raise InputError(f"{key} is {value!r}", where=path, allowed="a share in [0, 1]")


def _check_genotype(folder: Path, stated: str | None) -> None:
    path = folder / "genotype.json"
    if not path.exists():
        return
    found = Genotype.load(path).hash
    if found != stated:
        raise InputError(f"its hash is {found[:12]}, the run states {str(stated)[:12]}", where=path)
