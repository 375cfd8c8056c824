"""Retraining and the evaluation of what it exported, as the stages' programs, on a few images."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from pipelines import evaluate, profile, retrain
from pipelines.datasets.settings import ImageFolderData
from pipelines.networks import Entry, save_entry
from pipelines.prepare import prepare
from pipelines.results.checks import read_run
from search.errors import InputError
from search.files import read_json, write_json
from search.genotype import published

RUN = ["--network", "small", "--precision", "1bit", "--seed", "0"]
CIFAR10 = "cifar10/small-1bit-s0"


def arrays(folder: Path, part: str, count: int) -> None:
    random, labels = np.random.default_rng(count), np.arange(count, dtype=np.uint8) % 10
    pixels = np.clip(labels[:, None, None, None] * 25 + random.integers(0, 30, (count, 32, 32, 3)), 0, 255)
    np.save(folder / f"{part}_images.npy", pixels.astype(np.uint8))
    np.save(folder / f"{part}_labels.npy", labels)


def class_folders(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for name in ("ant", "bee", "cat"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (45, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.jpg")
    (folder / "train" / "bee" / "broken.jpg").write_text("no picture")


def settings() -> dict[str, Any]:
    """The smallest profile; two stages on the folder, the last of which recalibrates."""
    values = profile.values_of("ci")
    values["compute"] |= {"device": "cpu", "threads": 1}
    values["retrain"]["cifar10"] |= {"train_images": 40, "test_images": 50, "batch_size": 20}
    values["retrain"]["imagenet"] |= {"batch_size": 12, "workers": 1, "recalibrate_images": 20, "ema": 0.5}
    return values


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with data, one derived network, and its trainings on both tasks."""
    root = tmp_path_factory.mktemp("project")
    (root / "data" / "cifar10").mkdir(parents=True)
    arrays(root / "data" / "cifar10", "train", 60)
    arrays(root / "data" / "cifar10", "test", 60)
    manifest = {"name": "cifar10", "stand_in": False, "note": "", "sha256": "0" * 64, "root": "."}
    write_json(root / "data" / "cifar10" / "manifest.json", manifest)
    class_folders(root / "pictures")
    described = ImageFolderData(
        kind="folder", folder=str(root / "pictures"), name="insects", classes=3, damaged="skip"
    )
    prepare("imagenet", described, root / "data")
    (root / "params.yaml").write_text(yaml.safe_dump(settings()))
    genotype = published("DARTS_V2")
    (root / "runs" / "networks" / "small").mkdir(parents=True)
    entry = Entry("small", None, None, "published", genotype, genotype.hash)
    save_entry(root / "runs" / "networks" / "small", entry)
    for task in ("cifar10", "imagenet"):
        call(retrain.main, root, "--task", task, *RUN)
    yield root


def call(main: Any, root: Path, *arguments: str) -> None:
    before = sys.argv
    sys.argv = ["program", *arguments]
    try:
        with chdir(root):
            main()
    finally:
        sys.argv = before


@pytest.mark.parametrize("task", ["cifar10", "imagenet"])
def test_the_exported_file_reproduces_the_record_exactly(project: Path, task: str) -> None:
    call(evaluate.main, project, "--task", task, *RUN)
    trained, found = (project / "runs" / stage / task / "small-1bit-s0" for stage in ("retrain", "evaluate"))
    read_run(trained)
    read_run(found)
    was, now = read_json(trained / "metrics.json"), read_json(found / "metrics.json")
    for name in ("accuracy", "top5", "loss"):
        assert now[name] == was[name]
    assert now["recorded_accuracy"] == was["accuracy"]
    run = read_json(found / "run.json")
    assert run["same_machine"] is True
    assert run["weights_hash"] == read_json(trained / "run.json")["weights_hash"]
    assert now["images"] == run["dataset"]["test_images"] == {"cifar10": 50, "imagenet": 15}[task]


def test_what_retraining_records_besides(project: Path) -> None:
    metrics = read_json(project / "runs/retrain/imagenet/small-1bit-s0/metrics.json")
    assert metrics["recalibrated_images"] == 24
    assert metrics["accuracy_before_recalibration"] <= 1
    run = read_json(project / "runs/retrain/imagenet/small-1bit-s0/run.json")
    assert run["dataset"]["train_images"] == 36  # the broken one was left out
    assert run["compute"] == {"device": "cpu", "precision": "32-true"}
    assert not list((project / "runs" / ".resume").glob("*"))


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Path:
    """The project, to be spoilt."""
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("evaluate"))
    return tmp_path / "copy"


def changed(path: Path, **values: Any) -> None:
    write_json(path, read_json(path) | values)


def test_a_number_that_is_not_reproduced_ends_in_1(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = copied / "runs" / "retrain" / CIFAR10
    changed(trained / "metrics.json", accuracy=0.625)
    with pytest.raises(evaluate.NotReproduced) as end:
        call(evaluate.main, copied, "--task", "cifar10", *RUN)
    message = str(end.value.code)
    assert message.startswith(
        "error: runs/retrain/cifar10/small-1bit-s0: the exported weights do not reproduce"
    )
    assert "recorded 0.625" in message and "\n" not in message
    assert not (copied / "runs" / "evaluate").exists()
    changed(trained / "provenance.json", cpu="another processor")
    call(evaluate.main, copied, "--task", "cifar10", *RUN)
    assert "not the machine of the training (other: cpu)" in caplog.text
    found = copied / "runs" / "evaluate" / CIFAR10
    assert read_json(found / "run.json")["same_machine"] is False
    assert read_json(found / "metrics.json")["recorded_accuracy"] == 0.625


def test_what_cannot_be_compared_is_refused(copied: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            call(evaluate.main, copied, "--task", "cifar10", *RUN)

    changed(copied / "data" / "cifar10" / "manifest.json", sha256="1" * 64)
    refused("was tested on a data set of sha256 000000000000, the present one's is 111111111111")
    changed(copied / "data" / "cifar10" / "manifest.json", sha256="0" * 64)
    genotype = published("DDPNAS_MCN_2")
    entry = Entry("small", None, None, "published", genotype, genotype.hash)
    save_entry(copied / "runs" / "networks" / "small", entry)
    refused("these weights are of architecture [0-9a-f]{12}, the network is [0-9a-f]{12}")
    changed(copied / "runs" / "retrain" / CIFAR10 / "params.json", retrain={})
    refused("holds other settings than this version has; run: dvc repro retrain_cifar10")
    shutil.rmtree(copied / "runs" / "retrain" / CIFAR10)
    refused("no such file")


def test_any_file_on_any_folder(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(weights: Path | str, data: Path | str, *more: str) -> dict[str, Any]:
        call(evaluate.main, project, "--weights", str(weights), "--data", str(data), *more)
        return json.loads(capsys.readouterr().out)

    weights = {
        task: project / f"runs/retrain/{task}/small-1bit-s0/model.safetensors"
        for task in ("cifar10", "imagenet")
    }
    recorded = read_json(weights["imagenet"].parent / "metrics.json")
    for data in ("data/imagenet", "pictures", "pictures/val"):
        found = printed(weights["imagenet"], data, "--batch", "12")
        assert found == {name: recorded[name] for name in ("accuracy", "top5", "loss")} | {"images": 15}
    assert printed(weights["cifar10"], "data/cifar10")["images"] == 60
    resnet = torchvision.models.resnet18(num_classes=3)
    torch.save(resnet.state_dict(), tmp_path / "r.pth")
    assert printed(tmp_path / "r.pth", "pictures", "--size", "32", "--resize", "40")["images"] == 15
    with pytest.raises(InputError, match="give --size and --resize"):
        printed(tmp_path / "r.pth", "pictures")
    with pytest.raises(InputError, match="--size: Input should be greater than or equal to 32"):
        printed(tmp_path / "r.pth", "pictures", "--size", "8", "--resize", "40")
    with pytest.raises(InputError, match="resize 40 is less than size 64"):
        printed(tmp_path / "r.pth", "pictures", "--size", "64", "--resize", "40")
    with pytest.raises(SystemExit, match="2"):
        printed(tmp_path / "r.pth", "pictures", "--batch", "0")
    assert "'0' is no positive number" in capsys.readouterr().err
    with pytest.raises(InputError, match="has 10 classes; allowed: 3, as the data has"):
        printed(weights["cifar10"], "pictures")


def test_a_file_needs_no_project_and_no_other_classes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without params.yaml, from any folder: the same numbers, JSON alone on stdout; other classes are refused."""
    weights = project / "runs/retrain/imagenet/small-1bit-s0/model.safetensors"
    numbers = []
    for root in (project, tmp_path):
        capsys.readouterr()
        call(evaluate.main, root, "--weights", str(weights), "--data", str(project / "pictures"))
        numbers.append(json.loads(capsys.readouterr().out))
    assert numbers[0] == numbers[1]
    others = tmp_path / "others"
    shutil.copytree(project / "pictures/val", others)
    (others / "cat").rename(others / "dog")
    with pytest.raises(InputError, match="was trained on other classes: from place 2 on cat; allowed: dog"):
        call(evaluate.main, tmp_path, "--weights", str(weights), "--data", str(others))


def test_a_fixed_teacher_is_asked_once(copied: Path) -> None:
    values = yaml.safe_load((copied / "params.yaml").read_text())
    teacher = "runs/retrain/imagenet/small-1bit-s0/model.safetensors"
    values["retrain"]["imagenet"]["loss"] |= {
        "teacher": teacher,
        "teacher_weight": 0.5,
        "teacher_cache": "fixed",
    }
    (copied / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(copied / teacher, copied / "teacher.safetensors")
    arguments = ["--task", "imagenet", "--network", "small", "--precision", "real", "--seed"]
    call(retrain.main, copied, *arguments, "0")
    (logits,) = (copied / "runs" / ".teacher").iterdir()
    assert np.load(logits).shape == (36, 3)
    written = logits.stat().st_mtime_ns
    call(retrain.main, copied, *arguments, "1")
    assert [path.stat().st_mtime_ns for path in (copied / "runs" / ".teacher").iterdir()] == [written]
    run = read_json(copied / "runs/retrain/imagenet/small-real-s0/run.json")
    assert len(run["teacher_hash"]) == 64


def test_the_two_ways_to_call_it_are_not_mixed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--task", "cifar10"], ["--weights", "x", "--data", "y", "--seed", "0"], []):
        with pytest.raises(SystemExit) as end:
            call(evaluate.main, project, *wrong)
        assert end.value.code == 2
        assert "give either --task, --network, --precision and --seed" in capsys.readouterr().err
