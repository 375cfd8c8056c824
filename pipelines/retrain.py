"""Stage ``retrain``: train one network on CIFAR-10 or on an image folder (ImageNet's path), 1-bit or real."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from downstream.classification import EpochBatches, Trainer, build_network
from downstream.classification_settings import RetrainSettings
from pipelines import params, stage
from pipelines.cost import cost_object
from pipelines.networks import load_entry
from pipelines.record import dataset_of, write_record
from search.data import Batches, load_cifar10, load_manifest, split
from search.files import write_csv
from search.image_folder import FolderBatches
from search.training import Resume, seed_all, set_up
from search.weights import hash_state, save_weights

RESUME = Path("runs/.resume")


@dataclass(frozen=True)
class Task:
    """The data of a classification task: batches, number of classes, input size, and the manifest."""

    train: EpochBatches
    test: EpochBatches
    classes: int
    size: int
    train_images: int
    test_images: int
    manifest: dict[str, Any]


def load_task(name: str, settings: RetrainSettings, seed: int, fabric: Fabric) -> Task:
    """Read ``data/cifar10`` or ``data/imagenet`` as the recipe asks."""
    manifest = load_manifest(Path("data") / name)
    where: dict[str, Any] = {"rank": fabric.global_rank, "world": fabric.world_size, "device": fabric.device}
    size = settings.batch_size // settings.accumulation
    if name == "cifar10":
        train, test = load_cifar10("data/cifar10", "train"), load_cifar10("data/cifar10", "test")
        if settings.train_images:
            (train,) = split(train, (settings.train_images,), seed=0)
        if settings.test_images:
            (test,) = split(test, (settings.test_images,), seed=0)
        return Task(
            Batches(train, size, seed=seed, augmentation=settings.augmentation, **where),
            Batches(test, size, **where),
            train.classes,
            train.pixels.shape[-1],
            len(train),
            len(test),
            manifest,
        )
    root = Path("data/imagenet") / manifest["root"]
    folder_train = FolderBatches(
        root / "train", settings.crop, size, training=True, seed=seed, workers=settings.workers, **where
    )
    folder_test = FolderBatches(
        root / "val", settings.crop, size, training=False, seed=seed, workers=settings.workers, **where
    )
    return Task(
        folder_train,
        folder_test,
        len(folder_train.classes),
        settings.crop.size,
        len(folder_train.samples),
        len(folder_test.samples),
        manifest,
    )


def main() -> None:
    """Train and write ``runs/retrain/<task>/<network>-<precision>-s<seed>/``."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.retrain", description=__doc__)
    parser.add_argument("--task", required=True, choices=("cifar10", "imagenet"))
    parser.add_argument("--network", required=True, help="a network of the chain, such as cp_nas-s0")
    parser.add_argument("--precision", required=True, choices=("1bit", "real"))
    parser.add_argument("--seed", required=True, type=int)
    arguments = parser.parse_args()
    started = time.time()
    active = params.load()
    settings: RetrainSettings = getattr(active.retrain, arguments.task)
    entry = load_entry(arguments.network)
    fabric = set_up(active.compute, arguments.seed)
    task = load_task(arguments.task, settings, arguments.seed, fabric)
    seed_all(arguments.seed)
    model = build_network(entry.network, arguments.precision, task.classes, settings)
    key = f"{entry.name}-{arguments.precision}-s{arguments.seed}"
    identity = {
        "kind": "retrain",
        "task": arguments.task,
        "settings": settings.model_dump(exclude={"workers"}),
        "architecture": model.architecture_hash,
        "seed": arguments.seed,
        "data": task.manifest["sha256"],
        "device": fabric.device.type,
        "precision": active.compute.precision,
        "world": fabric.world_size,
    }
    resume = Resume(RESUME, identity)
    trained = Trainer(
        fabric,
        model,
        settings,
        task.classes,
        task.train,
        task.test,
        arguments.seed,
        resume,
        f"{arguments.task} {key}",
    ).run()
    if not fabric.is_global_zero:
        return
    with stage.output_folder(Path("runs/retrain") / arguments.task / key) as folder:
        weights = folder / "model.safetensors"
        save_weights(
            weights,
            trained.model,
            {"task": arguments.task, "network": entry.name, "seed": str(arguments.seed)},
        )
        write_record(
            folder,
            run={
                "stage": "retrain",
                "key": key,
                "network": entry.name,
                "method": entry.method,
                "precision": arguments.precision,
                "form": settings.network.form,
                "seed": arguments.seed,
                "task": arguments.task,
                "dataset": dataset_of(
                    task.manifest, train_images=task.train_images, test_images=task.test_images
                ),
                "paper_scale": active.paper_scale,
                "architecture_hash": model.architecture_hash,
                "genotype_hash": entry.genotype_hash,
                "weights_hash": hash_state(trained.model),
            },
            metrics={
                "accuracy": trained.evaluation.accuracy,
                "top5": trained.evaluation.top5,
                "loss": trained.evaluation.loss,
                "epochs": len(trained.history),
                "images_seen": trained.images_seen,
                "seconds": round(trained.seconds, 3),
                "images_per_second": round(trained.images_seen / max(trained.seconds, 1e-9), 2),
                "peak_memory_mib": round(trained.peak_memory_mib, 1),
            },
            params={"retrain": {arguments.task: settings.model_dump()}},
            started=started,
            seeds=[arguments.seed],
            data={task.manifest["name"]: task.manifest["sha256"]},
            history=trained.history,
            cost=cost_object(trained.model, (task.size, task.size)),
            genotype=entry.genotype,
        )
        write_csv(folder / "timing.csv", trained.timing)
    resume.remove()


if __name__ == "__main__":
    stage.run(main)
