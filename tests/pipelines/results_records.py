"""Synthetic run records for the tests of the result programs. They exist in temporary folders only."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.results.reading import SCHEMA, check, variant_of
from pipelines.results.run import Run
from search.files import write_csv, write_json, write_text
from search.genotype import Genotype, derive

CIFAR = {
    "name": "cifar10",
    "stand_in": False,
    "note": "complete",
    "sha256": "aa" * 32,
    "train_images": 2000,
    "test_images": 1000,
}
FOLDER = {
    "name": "cifar10-folder",
    "stand_in": True,
    "note": "stand-in for ImageNet",
    "sha256": "bb" * 32,
    "train_images": 500,
    "test_images": 200,
}
SCENES = {
    "name": "cifar10-scenes",
    "stand_in": True,
    "note": "stand-in",
    "sha256": "cc" * 32,
    "train_images": 60,
}
FACES = {"name": "orl-faces", "stand_in": True, "note": "stand-in", "sha256": "dd" * 32, "train_images": 200}
PROVENANCE = {
    "code": {"commit": "0123456789abcdef" * 2 + "01234567", "dirty": False},
    "cpu": "Synthetic CPU",
    "gpu": None,
    "threads": 2,
}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NEEDED = {kind.model_fields["stage"].annotation.__args__[0]: kind.needed for kind in Run.__subclasses__()}  # type: ignore[union-attr]
"""The metrics that a record of each stage must have."""
METHODS = ("cp_nas", "random")
SKILL = {"cp_nas": 0.06, "random": 0.0}
DATASETS = {"cifar10": CIFAR, "imagenet": FOLDER, "detection": SCENES, "reid": FACES}


def rng(*key: object) -> np.random.Generator:
    """A generator that depends on the words given and nothing else."""
    return np.random.default_rng(int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16))


def genotype(method: str, seed: int) -> Genotype:
    """A drawn genotype."""
    scores = rng(method, seed).random((2, 14, 8)).tolist()
    return derive(scores[0], scores[1], name=f"{method}-s{seed}", source="synthetic")


def cost(precision: str) -> dict[str, Any]:
    """Totals in the form of ``pipelines.cost --json``."""
    bops, flops = (12_000_000, 900_000) if precision == "1bit" else (0, 12_900_000)
    return {
        "params": 70000,
        "binary_weights": 60000,
        "bops": bops,
        "w1a32_macs": 0,
        "flops": flops,
        "macs": bops + flops,
        "ops_strict": bops / 64 + flops,
        "ops_generous": bops / 64 + flops,
        "mbit": 0.38,
        "input": 32,
    }


def detection_cost(precision: str) -> dict[str, Any]:
    """``cost.json`` of a detector: the backbone's, and under ``detector`` a larger one of the whole."""
    backbone = cost(precision)
    keys = ("params", "flops", "macs", "ops_strict", "ops_generous")
    whole = {key: value for key, value in backbone.items() if key != "input"}
    return {**backbone, "detector": whole | {key: whole[key] + 40_000_000 for key in keys} | {"mbit": 9.5}}


def sha(words: str) -> str:
    """A hash, as records hold them."""
    return hashlib.sha256(words.encode()).hexdigest()


def in_memory(
    campaign: str,
    run: dict[str, Any],
    metrics: dict[str, float],
    params: dict[str, Any],
    provenance: dict[str, Any] | None = None,
    **parts: Any,
) -> Run:
    """A run that was never written; what is not given has a plain value."""
    common: dict[str, Any] = {
        "schema": SCHEMA,
        "key": run["network"],
        "method": None,
        "precision": "1bit",
        "form": "paper",
        "seed": 0,
        "dataset": CIFAR,
        "paper_scale": False,
        "architecture_hash": sha("architecture"),
        "genotype_hash": None,
    }
    value = common | {"variant": variant_of({**common, **run}), **run}
    needed = dict.fromkeys(NEEDED[value["stage"]], 1)
    parts |= {"metrics": needed | metrics, "params": params, "provenance": PROVENANCE | (provenance or {})}
    return check(value | parts, Path("nowhere"), campaign=campaign, label=value["network"])


def write_run(
    runs: Path,
    place: str,
    *,
    network: str,
    method: str | None,
    task: str,
    metrics: dict[str, float],
    precision: str = "1bit",
    seed: int = 0,
    params: dict[str, Any] | None = None,
    found: Genotype | None = None,
    counted: bool = True,
    **changes: Any,
) -> Path:
    """One run folder in the form of the stage programs; ``changes`` overwrite keys of run.json.

    With ``schema=1`` it is written as code of that time did, unchecked.
    """
    folder = runs / place
    run = {
        "stage": place.split("/")[0],
        "key": place.split("/")[-1],
        "network": network,
        "method": method,
        "precision": precision,
        "form": "paper",
        "seed": seed,
        "task": task,
        "dataset": DATASETS.get(task),
        "paper_scale": False,
        "architecture_hash": "ee" * 32,
        "genotype_hash": found.hash if found else None,
    }
    settings = params or {"retrain": {"epochs": 3, "seed": seed}}
    counts = (detection_cost if run["stage"] == "detect" else cost)(precision) if counted else None
    if changes.get("schema") == 1:
        files = {"run": run | changes, "metrics": metrics, "params": settings, "provenance": PROVENANCE}
        files |= {"cost": counts} if counts else {}
    else:
        files = in_memory("x", run | changes, metrics, settings, cost=counts).files()
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    write_text(folder / "model.safetensors", "weights")
    if found:
        found.save(folder / "genotype.json")
    return folder


def write_search(runs: Path, method: str, seed: int, **settings: Any) -> None:
    """A search run with its histories, and the network derived from it."""
    found, name = genotype(method, seed), f"{method}-s{seed}"
    metrics = {
        "val_accuracy": 0.4 + 0.01 * seed,
        "epochs": 35,
        "images_seen": 35000,
        "seconds": 60.0 + seed,
        "peak_memory_mib": 400,
    }
    params = {"space": {"cells": 5}, "method": {method: {"rounds": 1, **settings}}}
    folder = write_run(
        runs,
        f"search/{name}",
        network=name,
        method=method,
        task="cifar10",
        metrics=metrics,
        seed=seed,
        params=params,
        found=found,
        counted=False,
    )
    (_eliminate if method == "cp_nas" else _draw)(folder, seed)
    network = runs / "networks" / name
    found.save(network / "genotype.json")
    entry = {
        "schema": 1,
        "name": name,
        "method": method,
        "seed": seed,
        "kind": "genotype",
        "network": "genotype.json",
    }
    write_json(network / "network.json", entry | {"genotype_hash": found.hash})


def write_variant(
    runs: Path,
    variant: str,
    method: str,
    seed: int,
    params: dict[str, Any],
    accuracy: float,
    seconds: float = 60.0,
) -> None:
    """A search with a variant of a method, and the 1-bit retraining of what it found."""
    found, name = genotype(variant, seed), f"{variant}-s{seed}"
    common: dict[str, Any] = {"network": name, "method": method, "task": "cifar10", "found": found}
    base = {"epochs": 3, "images_seen": 6000, "seconds": seconds}
    write_run(
        runs,
        f"search/{name}",
        **common,
        variant=variant,
        seed=seed,
        params=params,
        precision="1bit" if params["space"].get("binary", True) else "real",
        metrics=base | {"val_accuracy": accuracy / 2},
        counted=False,
    )
    write_run(runs, f"retrain/cifar10/{name}-1bit-s0", **common, metrics=base | {"accuracy": accuracy})


def _eliminate(folder: Path, seed: int) -> None:
    draw, history, rounds = rng("history", seed), [], []
    alive = [list(range(8)) for _ in range(14)]
    for k in range(8, 1, -1):
        for e in range(k):
            child = 0.25 + 0.01 * len(history) ** 0.7 + 0.02 * draw.random()
            history.append(
                {
                    "step": len(history),
                    "k": k,
                    "round": 0,
                    "draw": e,
                    "epoch": len(history),
                    "accuracy_child": child,
                    "accuracy_parent": child + 0.08,
                    "z": child,
                    "loss_child": 2 - child,
                    "loss_parent": 1.8 - child,
                    "seconds": 2.0 * len(history),
                    "images_seen": 1000 * len(history),
                    "normal": "0" * 14,
                    "reduce": "0" * 14,
                }
            )
        for edge in alive:
            edge.remove(int(draw.choice(edge)))
        text = "|".join("".join(map(str, edge)) for edge in alive)
        rounds.append(
            {
                "k": k,
                "tau": "",
                "mean_margin": 0.01,
                "parameter_free_share": 0.4,
                "collapsed": 0,
                "surviving_normal": text,
                "surviving_reduce": text,
            }
        )
    write_csv(folder / "history.csv", history)
    write_csv(folder / "rounds.csv", rounds)


def _draw(folder: Path, seed: int) -> None:
    draw = rng("random", seed)
    rows = [
        {
            "step": step,
            "accuracy": 0.3 + 0.1 * draw.random(),
            "architecture": step,
            "images_seen": 1000 * step,
            "seconds": 2.0 * step,
            "genotype": genotype("random", step).hash,
        }
        for step in range(12)
    ]
    write_csv(folder / "history.csv", rows)


def write_retrain(
    runs: Path, method: str, search_seed: int, precision: str, task: str, seed: int = 0
) -> None:
    """A retraining of a found network."""
    name = f"{method}-s{search_seed}"
    noise = rng(method, search_seed, precision, task, seed).normal(0, 0.004)
    value = 0.5 + SKILL[method] + (0.1 if precision == "real" else 0) + noise
    metrics = {
        "accuracy": value,
        "top5": 0.9,
        "loss": 1.2,
        "epochs": 3,
        "images_seen": 6000,
        "seconds": 30.0,
        "images_per_second": 200.0,
        "peak_memory_mib": 300,
    }
    folder = write_run(
        runs,
        f"retrain/{task}/{name}-{precision}-s{seed}",
        network=name,
        method=method,
        task=task,
        metrics=metrics,
        precision=precision,
        seed=seed,
        found=genotype(method, search_seed),
    )
    rows = [
        {
            "epoch": epoch,
            "train_loss": 2.0 - 0.2 * epoch,
            "train_accuracy": 0.3 + 0.05 * epoch,
            "accuracy": value - 0.05 * (3 - epoch),
            "lr": 0.1,
            "seconds": 10.0 * epoch,
        }
        for epoch in range(1, 4)
    ]
    write_csv(folder / "history.csv", rows)


def write_transfer(runs: Path, method: str, search_seed: int, precision: str = "1bit") -> None:
    """A detection and a re-identification run of a found network."""
    name, found = f"{method}-s{search_seed}", genotype(method, search_seed)
    value = 0.3 + SKILL[method] + 0.01 * search_seed
    common: dict[str, Any] = {"network": name, "method": method, "precision": precision, "found": found}
    detection = {
        "coco_map": value / 2,
        "coco_map50": value,
        "voc_map50": value,
        "untrained_coco_map50": 0.01,
        "untrained_voc_map50": 0.02,
        "seconds": 50.0,
    }
    place, params = f"detect/{name}-{precision}-s0", {"detection": {"detector": "ssd"}}
    folder = write_run(runs, place, task="detection", metrics=detection, params=params, **common)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "scene_1.png").write_bytes(PIXEL)
    rows = [{"epoch": epoch, "loss": 2 - value * epoch, "lr": 0.01, "seconds": 9.0} for epoch in (1, 2, 3)]
    write_csv(folder / "history.csv", rows)
    retrieval = {
        "rank1": value,
        "rank5": value + 0.2,
        "rank10": value + 0.3,
        "map": value,
        "untrained_rank1": 0.1,
        "untrained_map": 0.08,
        "pixels_rank1": 0.6,
        "pixels_map": 0.25,
        "seconds": 40.0,
    }
    folder = write_run(runs, f"reid/{name}-{precision}-s0", task="reid", metrics=retrieval, **common)
    write_csv(folder / "history.csv", [{**row, "map": value, "rank1": value} for row in rows])
    write_text(
        folder / "pictures" / "query_1.svg", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'
    )


def write_campaign(runs: Path, seeds: int = 3) -> Path:
    """A whole runs/ folder: two methods, every stage."""
    for method in METHODS:
        for seed in range(seeds):
            write_search(runs, method, seed)
            write_transfer(runs, method, seed)
            name = f"{method}-s{seed}"
            for precision in ("1bit", "real"):
                write_run(
                    runs,
                    f"cost/{name}/retrain-cifar10-{precision}",
                    network=name,
                    method=method,
                    task="retrain-cifar10",
                    metrics={},
                    precision=precision,
                    seed=seed,
                    found=genotype(method, seed),
                )
            for precision in ("1bit", "real"):
                for task in ("cifar10", "imagenet"):
                    write_retrain(runs, method, seed, precision, task)
    write_run(
        runs,
        "retrain/cifar10/bi-real-18-1bit-s0",
        network="bi-real-18",
        method=None,
        task="cifar10",
        form=None,
        metrics={"accuracy": 0.45, "epochs": 3, "images_seen": 6000, "seconds": 20.0},
    )
    return runs
