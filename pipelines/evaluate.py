"""Stage ``evaluate``: evaluate an exported network and compare it with what its training recorded.

With --network the weights that ``pipelines.retrain`` wrote are read back and must reproduce the recorded numbers
exactly: where machine, threads, processes and libraries are the same, any difference ends in exit code 1. With
--weights any file is evaluated on any folder, and the numbers are printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import code, stage
from pipelines.networks import load_entry
from pipelines.provenance import provenance
from pipelines.record import dataset_of, write_record
from search.errors import InputError
from search.files import read_json
from search.manifest import read_manifest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from downstream.classification.settings import RetrainSettings
    from pipelines.tasks import ImageSet
    from search.image_folder import CropSettings
    from search.training import Evaluation


LOGGER = logging.getLogger("cp_nas.evaluate")
RUNS = Path("runs")
NUMBERS = ("accuracy", "top5", "loss")
MACHINE = ("platform", "cpu", "gpu", "cuda", "threads", "processes", "packages", "python", "aten", "onednn")
"""Parts of the provenance that decide whether two evaluations can be the same to the last bit."""


class NotReproduced(SystemExit):
    """The evaluation differs from the record: one line on stderr and exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}")


def main() -> None:
    """Write ``runs/evaluate/<task>/<network>-<precision>-s<seed>/``, or print the evaluation of a file."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate", description=__doc__)
    parser.add_argument("--task", choices=("cifar10", "imagenet"))
    parser.add_argument("--network", help="a network of the chain, such as cp_nas-s0")
    parser.add_argument("--precision", choices=("1bit", "real"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--weights", help="a weight file of this suite, or of a torchvision ResNet")
    parser.add_argument(
        "--data", type=Path, help="prepared data, or a folder with one folder of images a class"
    )
    parser.add_argument("--size", type=int, help="side of the input; default: as the file was trained")
    parser.add_argument("--resize", type=int, help="shorter side before the centre crop; default likewise")
    parser.add_argument("--batch", type=positive, default=64, help="images at a time (default: %(default)s)")
    arguments = parser.parse_args()
    stage_arguments = (arguments.task, arguments.network, arguments.precision, arguments.seed)
    file_arguments = (arguments.weights, arguments.data)
    if None not in file_arguments and set(stage_arguments) == {None}:
        evaluate_file(arguments)
    elif None not in stage_arguments and set(file_arguments) == {None}:
        evaluate_run(*stage_arguments)
    else:
        parser.error("give either --task, --network, --precision and --seed, or --weights and --data")


def positive(text: str) -> int:
    """A number of images on the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def evaluate_run(task: str, network: str, precision: str, seed: int) -> None:
    """Evaluate what ``pipelines.retrain`` exported, compare, and write the record."""
    from downstream.classification.network import build_network
    from downstream.models import load_network
    from pipelines import params
    from pipelines.tasks import load_set
    from search.training import set_up
    from search.weights import hash_state

    code.check("evaluate")
    started = time.time()
    active = params.load()
    entry = load_entry(network)
    key = f"{entry.name}-{precision}-s{seed}"
    trained = RUNS / "retrain" / task / key
    run, recorded, settings = read_run(trained, task)
    fabric = set_up(active.compute, seed)
    images = load_set(task, "test", settings, seed, fabric)
    manifest = read_manifest(Path("data") / task)
    check_images(run, manifest, images, trained)
    model = build_network(entry.network, precision, images.classes, settings)
    model, _ = load_network(trained / "model.safetensors", model)
    found = evaluated(fabric, model, images)
    if not fabric.is_global_zero:
        return
    compute = {"device": fabric.device.type, "precision": active.compute.precision}
    differences = machine_differences(trained, run, compute)
    compare(found, recorded, differences, trained)
    with stage.output_folder(RUNS / "evaluate" / task / key) as folder:
        write_record(
            folder,
            run={
                **{name: run[name] for name in ("network", "method", "precision", "form", "seed", "task")},
                "stage": "evaluate",
                "key": key,
                "dataset": dataset_of(manifest, test_images=images.images),
                "paper_scale": active.paper_scale,
                "architecture_hash": model.architecture_hash,
                "genotype_hash": entry.genotype_hash,
                "weights_hash": hash_state(model),
                "compute": compute,
                "same_machine": not differences,
            },
            metrics={
                **asdict(found),
                "recorded_accuracy": recorded["accuracy"],
                "seconds": round(time.time() - started, 3),
            },
            params={"retrain": {task: settings.model_dump()}},
            started=started,
            seeds=[seed],
            data={manifest["name"]: manifest["sha256"]},
            genotype=entry.genotype,
        )


def read_run(folder: Path, task: str) -> tuple[dict[str, Any], dict[str, Any], RetrainSettings]:
    """run.json and metrics.json of a retraining, and the settings it ran with."""
    from pydantic import ValidationError

    from downstream.classification.settings import RetrainSettings

    run, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    try:
        settings = RetrainSettings.model_validate(read_json(folder / "params.json")["retrain"][task])
    except (KeyError, ValidationError):
        raise InputError(
            "holds other settings than this version has",
            where=folder / "params.json",
            mend="run: dvc repro retrain_" + task,
        ) from None
    return run, metrics, settings


def check_images(run: dict[str, Any], manifest: dict[str, Any], images: ImageSet, folder: Path) -> None:
    """Refuse to compare numbers of different test images."""
    trained = run["dataset"]
    here = {"sha256": manifest["sha256"], "test_images": images.images}
    for name, value in here.items():
        if trained[name] != value:
            raise InputError(
                f"was tested on a data set of {name} {str(trained[name])[:12]}, the present one's is {str(value)[:12]}",
                where=folder,
                mend="prepare the data that it was trained with, or train it again",
            )


def evaluated(fabric: Fabric, model: Any, images: ImageSet) -> Evaluation:
    """The evaluation, by the code that the training used."""
    from search.training import evaluate, place

    model = place(model, fabric.device)
    return evaluate(fabric, model, model, images.batches.epoch(0))


def machine_differences(folder: Path, run: dict[str, Any], compute: dict[str, str]) -> list[str]:
    """What of the recorded machine and arithmetic is not as here; equal numbers are promised if there is nothing."""
    recorded = read_json(folder / "provenance.json")
    here = provenance(seeds=[], data={}, architecture_hash=None, started=time.time())
    differing = [name for name in MACHINE if recorded.get(name) != here[name]]
    return differing + [name for name, value in compute.items() if run["compute"][name] != value]


def compare(found: Evaluation, recorded: dict[str, Any], differences: list[str], folder: Path) -> None:
    """End the program where numbers differ that cannot; say so where they may."""
    wrong = {name: (getattr(found, name), recorded[name]) for name in NUMBERS}
    text = ", ".join(f"{name} {a!r}, recorded {b!r}" for name, (a, b) in wrong.items() if a != b)
    if text and not differences:
        raise NotReproduced(f"{folder}: the exported weights do not reproduce the record: {text}")
    if text:
        LOGGER.warning(
            "%s: %s; not the machine of the training (other: %s)", folder, text, ", ".join(differences)
        )


def evaluate_file(arguments: argparse.Namespace) -> None:
    """Evaluate a weight file on a folder, and print the numbers as JSON; needs no params.yaml."""
    from downstream.classification.teacher import load_teacher
    from pipelines import params
    from search.training import ComputeSettings, set_up

    compute = params.load().compute if params.PARAMS.exists() else ComputeSettings()
    fabric = set_up(compute, seed=0)
    images, task = open_data(arguments, fabric)
    model = load_teacher(arguments.weights, task, images.classes, images.names)
    found = evaluated(fabric, model, images)
    if not math.isfinite(found.loss):
        raise InputError("its outputs on these images are not finite", where=arguments.weights)
    if fabric.is_global_zero:
        print(json.dumps(asdict(found)))


def open_data(arguments: argparse.Namespace, fabric: Fabric) -> tuple[ImageSet, str]:
    """The test images in a folder, and the task whose normalisation they get."""
    from pipelines.tasks import array_set, folder_set, plain_set

    if (arguments.data / "test_images.npy").exists():
        return array_set(arguments.data, "test", 0, arguments.batch, fabric), "cifar10"
    crop = crop_of(arguments)
    if (arguments.data / "manifest.json").exists() and "classes" in read_manifest(arguments.data):
        return folder_set(
            arguments.data, "test", crop, arguments.batch, seed=0, workers=0, fabric=fabric
        ), "imagenet"
    below = arguments.data / "val"
    return plain_set(below if below.is_dir() else arguments.data, crop, arguments.batch, fabric), "imagenet"


def crop_of(arguments: argparse.Namespace) -> CropSettings:
    """The crop of the command line, where it is silent that of the file's training."""
    from pydantic import ValidationError

    from search.image_folder import CropSettings
    from search.weights import has_architecture, is_safetensors, read_header

    path = str(arguments.weights)
    header = read_header(path) if is_safetensors(path) and has_architecture(path) else {}
    crop: dict[str, Any] = {"smallest_crop": 1.0, "lighting": 0.0, "decoder": "pil"}
    with suppress(TypeError, ValueError):
        crop |= json.loads(header.get("crop", "{}"))
    crop |= {name: getattr(arguments, name) for name in ("size", "resize") if getattr(arguments, name)}
    if not {"size", "resize"} <= set(crop):
        raise InputError(
            "does not say how its images are cropped",
            where=path,
            mend="give --size and --resize, such as 224 and 256",
        )
    try:
        return CropSettings.model_validate(crop)
    except ValidationError as error:
        detail = error.errors()[0]
        where = " ".join(f"--{part}" for part in detail["loc"]) or "--size and --resize"
        raise InputError(detail["msg"].removeprefix("Value error, "), where=where) from None


if __name__ == "__main__":
    stage.run(main)
