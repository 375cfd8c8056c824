"""One process of a training, alone or of several: ``python -m tests.downstream.retrain_worker FOLDER MODE``.

MODE ``die`` trains the case :data:`INTERRUPTED` and ends like after ``kill -9`` when its first state has been saved;
``go-on`` trains it to its end from there, and then every case without an interruption. The first process writes
``FOLDER/<processes>.json``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from downstream.classification.network import build_network
from downstream.classification.teacher import FixedTeacher, Teacher, fix_teacher
from downstream.classification.trainer import Trainer
from downstream.models import build
from search.binary import SignActivation
from search.data import Batches
from search.files import write_json
from search.genotype import Genotype, published
from search.image_folder import CropSettings, FolderBatches
from search.processes import rank, world
from search.training import Resume, place, seed_all, set_up
from search.weights import hash_state
from tests.downstream.test_classification import STAGE, recipe
from tests.search import tiny

NETWORK = Genotype.from_dict(
    json.loads(json.dumps(published("DARTS_V2").to_dict()).replace("max_pool", "avg_pool"))
)
"""Without maxima: of equal values rounding would choose the one that gets the gradient."""
SGD = STAGE | {"optimiser": "sgd", "learning_rate": 0.05}
"""Plain steps: unlike Adam's, they show a gradient that is wrong by a factor."""
CASES: dict[str, tuple[str | Genotype, dict[str, Any]]] = {
    # a stage of real weights, then of 1-bit ones, with all of CP-NAS's losses, drop path, clipping that acts, EMA
    "cp": (NETWORK, {"stages": [SGD | {"epochs": 1, "binary_weights": False}, SGD], "clip": 0.5}),
    "steps": (NETWORK, {"stages": [SGD], "clip": 0.5, "accumulation": 2}),
    "recalibrated": ("bi-real-18", {"stages": [SGD], "recalibrate_images": 32, "ema": 0.5}),
    # a teacher that was asked in advance, by all processes
    "taught": ("bi-real-18", {"stages": [SGD], "loss": {"teacher": "made here", "teacher_weight": 0.5}}),
}
INTERRUPTED = "cp"


class Dying(Resume):
    """Kills its process as soon as a state lies on the disk."""

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        os.kill(os.getpid(), signal.SIGKILL)


def above_ties(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Move a sign's threshold far above float64's rounding, and far below any real difference.

    Few different values come out of 1-bit convolutions, so that many are 0 after batch norm if it were not for
    rounding: which sign they get says nothing, and would hide what the test compares.
    """
    return (inputs[0] + 1e-7,) if isinstance(module, SignActivation) else None


def rest(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes of a recipe besides those of its losses."""
    return {key: value for key, value in changes.items() if key != "loss"}


def taught(fabric: Fabric, batches: Batches, folder: Path) -> FixedTeacher:
    """The answers of an untrained network about the 72 images."""
    seed_all(7)
    network = place(build("resnet-18", precision="real", channels=4, classes=4, stem="cifar"), fabric.device)
    teacher = Teacher(network, "cifar10", "cifar10")
    return fix_teacher(
        fabric, teacher, batches.plain(), (72, 4), {"world": fabric.world_size}, folder / "logits"
    )


def asked(folder: Path) -> list[list[float]]:
    """A teacher's answers about 17 pictures in fours: one process alone has the last of them."""
    pictures = folder / "pictures" / "class"
    if rank() == 0:
        pictures.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        for index in range(17):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                pictures / f"{index}.png"
            )
    fabric = set_up(tiny.COMPUTE, 0)
    fabric.barrier()
    crop = CropSettings(size=32, resize=32, smallest_crop=1.0, lighting=0.0, decoder="pil")
    part: dict[str, Any] = {"rank": fabric.global_rank, "world": fabric.world_size}
    batches = FolderBatches(pictures.parent, crop, 4, training=True, seed=0, **part)
    seed_all(7)
    network = place(
        build("resnet-18", precision="real", channels=4, classes=3, stem="imagenet"), fabric.device
    )
    fixed = fix_teacher(
        fabric, Teacher(network, "imagenet", "imagenet"), batches.plain(), (17, 3), {}, folder / "asked"
    )
    return np.asarray(fixed.logits).tolist()  # type: ignore[no-any-return]


def train(name: str, folder: Path, resume: type[Resume] = Resume) -> dict[str, Any]:
    """Train a case in float64; gives history, evaluation, and a hash of the weights."""
    network, changes = CASES[name]
    settings = recipe({"handmade_channels": 4}, changes.get("loss"), **rest(changes))
    torch.set_default_dtype(torch.float64)
    handle = register_module_forward_pre_hook(above_ties)  # type: ignore[arg-type]
    try:
        fabric = set_up(tiny.COMPUTE, 0)
        part: dict[str, Any] = {"rank": fabric.global_rank, "world": fabric.world_size}
        size = settings.batch_size // settings.accumulation
        train_batches = Batches(tiny.images(72), size, augmentation=settings.augmentation, **part)
        teacher = taught(fabric, train_batches, folder) if settings.loss.teacher else None
        trained = Trainer(
            fabric,
            build_network(network, "1bit", 4, settings),
            settings,
            4,
            train_batches,
            Batches(tiny.images(41, seed=0), size, **part),
            0,
            resume(folder, {"case": name, "world": fabric.world_size}, "code"),
            quiet=True,
            teacher=teacher,
        ).run()
    finally:
        handle.remove()
        torch.set_default_dtype(torch.float32)
    evaluation = trained.evaluation
    return {
        "history": trained.history,
        "final": [evaluation.accuracy, evaluation.loss, evaluation.images],
        "hash": hash_state(trained.model),
    }


def main() -> None:
    """Do what the command line says."""
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    found = {"resumed": train(INTERRUPTED, folder / "cut", Dying if mode == "die" else Resume)}
    found |= {name: train(name, folder / "whole") for name in CASES}
    found |= {"asked": asked(folder)}
    if rank() == 0:
        write_json(folder / f"{world()}.json", found)


if __name__ == "__main__":
    main()
