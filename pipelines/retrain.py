"""Stage ``retrain``: train one network on CIFAR-10 or on an image folder (ImageNet's path), 1-bit or real."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import code, stage
from pipelines.networks import Entry, load_entry
from pipelines.record import dataset_of, write_record
from search.files import sha256_file, write_csv

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from downstream.classification.settings import RetrainSettings
    from downstream.classification.trainer import Retrained
    from pipelines.tasks import Task


RESUME = Path("runs/.resume")
TEACHERS = Path("runs/.teacher")
"""Logits of teachers that were asked once, about every image without augmentation."""


def open_teacher(name: str, settings: RetrainSettings, task: Task, fabric: Fabric) -> nn.Module | None:
    """The recipe's teacher, ready to be asked, or None; a fixed one is asked about all training images first."""
    from downstream.classification.teacher import fix_teacher, identity_of, load_teacher
    from pipelines.tasks import content_of
    from search.training import place

    loss = settings.loss
    if loss.teacher is None:
        return None
    teacher = place(load_teacher(loss.teacher, name, task.train.classes, task.train.names), fabric.device)
    if loss.teacher_cache == "none":
        return teacher
    identity = identity_of(
        loss.teacher,
        content_of(task.manifest),
        fabric,
        task=name,
        images=task.train.images,
        crop=settings.crop.model_dump(include={"size", "resize", "decoder"}),
    )
    shape = (task.train.images, task.train.classes)
    return fix_teacher(fabric, teacher, task.train.batches.plain(), shape, identity, TEACHERS)


def header(
    name: str, entry: Entry, settings: RetrainSettings, seed: int, model: nn.Module, task: Task
) -> dict[str, str]:
    """What a weight file says of itself besides its architecture, all that its evaluation needs included."""
    from downstream.classification.described import description
    from downstream.models import binarised

    last = settings.stages[-1]
    return {
        "task": name,
        "network": entry.name,
        "genotype_hash": entry.genotype_hash or "",
        "seed": str(seed),
        "binarised": binarised(last.binary_activations, last.binary_weights),
        "crop": json.dumps(settings.crop.model_dump(), sort_keys=True),
        **description(model, name, task.train.names),
    }


def measured(trained: Retrained) -> dict[str, float]:
    """The metrics of a finished training."""
    found: dict[str, float] = {
        "accuracy": trained.evaluation.accuracy,
        "top5": trained.evaluation.top5,
        "loss": trained.evaluation.loss,
        "epochs": len(trained.history),
        "images_seen": trained.images_seen,
        "seconds": round(trained.seconds, 3),
        "images_per_second": round(trained.images_seen / max(trained.seconds, 1e-9), 2),
        "peak_memory_mib": round(trained.peak_memory_mib, 1),
    }
    if trained.recalibrated_images:
        found["recalibrated_images"] = trained.recalibrated_images
        found["accuracy_before_recalibration"] = trained.history[-1]["accuracy"]
    return found


def main() -> None:
    """Train and write ``runs/retrain/<task>/<network>-<precision>-s<seed>/``."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.retrain", description=__doc__)
    parser.add_argument("--task", required=True, choices=("cifar10", "imagenet"))
    parser.add_argument("--network", required=True, help="a network of the chain, such as cp_nas-s0")
    parser.add_argument("--precision", required=True, choices=("1bit", "real"))
    parser.add_argument("--seed", required=True, type=int)
    arguments = parser.parse_args()
    from downstream.classification.network import build_network
    from downstream.classification.trainer import Trainer
    from downstream.cost import cost_object
    from pipelines import params
    from pipelines.tasks import content_of, load_task
    from search.gradients import require_right_gradients
    from search.training import Resume, seed_all, set_up
    from search.weights import hash_state, save_weights

    started = time.time()
    active = params.load()
    settings: RetrainSettings = getattr(active.retrain, arguments.task)
    code.check("retrain")
    code.check(f"teacher.{arguments.task}", code.teacher_hash(settings.loss.teacher))
    entry = load_entry(arguments.network)
    settings = settings.of(entry.name)
    fabric = set_up(active.compute, arguments.seed)
    require_right_gradients(fabric.device)
    task = load_task(arguments.task, settings, arguments.seed, fabric)
    seed_all(arguments.seed)
    model = build_network(entry.network, arguments.precision, task.train.classes, settings)
    teacher = open_teacher(arguments.task, settings, task, fabric)
    key = f"{entry.name}-{arguments.precision}-s{arguments.seed}"
    teacher_hash = sha256_file(settings.loss.teacher) if settings.loss.teacher else None
    identity = {
        "kind": "retrain",
        "task": arguments.task,
        "settings": settings.model_dump(exclude={"workers"}),
        "architecture": model.architecture_hash,
        "seed": arguments.seed,
        "data": content_of(task.manifest),
        "device": fabric.device.type,
        "precision": active.compute.precision,
        "world": fabric.world_size,
        "threads": active.compute.threads,
        "teacher": teacher_hash,
    }
    resume = Resume(RESUME, identity, code.of_stage("retrain"))
    trained = Trainer(
        fabric,
        model,
        settings,
        task.train.classes,
        task.train.batches,
        task.test.batches,
        arguments.seed,
        resume,
        f"{arguments.task} {key}",
        teacher=teacher,
    ).run()
    if not fabric.is_global_zero:
        return
    with stage.output_folder(Path("runs/retrain") / arguments.task / key) as folder:
        save_weights(
            folder / "model.safetensors",
            trained.model,
            header(arguments.task, entry, settings, arguments.seed, trained.model, task),
        )
        write_record(
            folder,
            run={
                "stage": "retrain",
                "key": key,
                "network": entry.name,
                "method": entry.method,
                "precision": arguments.precision,
                "form": settings.network.form if entry.genotype_hash else None,
                "seed": arguments.seed,
                "task": arguments.task,
                "dataset": dataset_of(
                    task.manifest, train_images=task.train.images, test_images=task.test.images
                ),
                "paper_scale": active.paper_scale,
                "architecture_hash": model.architecture_hash,
                "genotype_hash": entry.genotype_hash,
                "weights_hash": hash_state(trained.model),
                "teacher_hash": teacher_hash,
                "compute": {"device": fabric.device.type, "precision": active.compute.precision},
            },
            metrics=measured(trained),
            params={"retrain": {arguments.task: settings.model_dump()}},
            started=started,
            seeds=[arguments.seed],
            data={task.manifest["name"]: task.manifest["sha256"]},
            history=trained.history,
            cost=cost_object(trained.model, (task.train.size, task.train.size)),
            genotype=entry.genotype,
        )
        write_csv(folder / "timing.csv", trained.timing)
    resume.remove()


if __name__ == "__main__":
    stage.run(main)
