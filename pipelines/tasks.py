"""The data of the classification tasks: ``data/cifar10`` and ``data/imagenet`` as a recipe asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from downstream.classification.batches import EpochBatches
from downstream.classification.settings import RetrainSettings
from search.data import Batches, load_cifar10, split
from search.image_folder import CropSettings, FolderBatches
from search.manifest import read_manifest

DATA = Path("data")


@dataclass(frozen=True)
class ImageSet:
    """One part of a task's data: its batches, number of classes, input size, number of images, names of classes."""

    batches: EpochBatches
    classes: int
    size: int
    images: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """The data of a classification task, and its manifest."""

    train: ImageSet
    test: ImageSet
    manifest: dict[str, Any]


def load_task(name: str, settings: RetrainSettings, seed: int, fabric: Fabric) -> Task:
    """Read ``data/cifar10`` or ``data/imagenet`` as the recipe asks.

    The batches are those of one step: the recipe's batch over its steps of accumulation.
    """
    return Task(
        load_set(name, "train", settings, seed, fabric),
        load_set(name, "test", settings, seed, fabric),
        read_manifest(DATA / name),
    )


def content_of(manifest: dict[str, Any]) -> str:
    """A hash that changes with the pictures of a prepared data set, though names and sizes stay."""
    return str(manifest.get("content", manifest["sha256"]))


def load_set(name: str, part: str, settings: RetrainSettings, seed: int, fabric: Fabric) -> ImageSet:
    """One part (``train`` or ``test``) of a task's data; see :func:`load_task`."""
    batch = settings.batch_size // settings.accumulation
    count = settings.train_images if part == "train" else settings.test_images
    if name == "imagenet":
        workers = settings.workers
        return folder_set(
            DATA / name, part, settings.crop, batch, seed=seed, workers=workers, fabric=fabric, count=count
        )
    augmentation = settings.augmentation if part == "train" else None
    return array_set(DATA / name, part, count, batch, fabric, seed=seed, augmentation=augmentation)


def array_set(folder: Path, part: str, count: int, batch: int, fabric: Fabric, **more: Any) -> ImageSet:
    """CIFAR-10, of it ``count`` images with balanced classes, 0 for all; ``more`` as in ``Batches``."""
    images = load_cifar10(folder, part)
    if count:
        (images,) = split(images, (count,), seed=0)
    batches = Batches(images, batch, **_place(fabric), **more)
    return ImageSet(batches, images.classes, images.pixels.shape[-1], len(images), _names_in(folder))


def folder_set(
    prepared: Path,
    part: str,
    crop: CropSettings,
    batch: int,
    *,
    seed: int,
    workers: int,
    fabric: Fabric,
    count: int = 0,
) -> ImageSet:
    """Class folders that were prepared: without what the preparation left out, ``count`` images of it (0: all)."""
    manifest = read_manifest(prepared)
    split_name = "train" if part == "train" else "val"
    batches = FolderBatches(
        Path(manifest["root"]) / split_name,
        crop,
        batch,
        training=part == "train",
        seed=seed,
        workers=workers,
        classes=manifest["classes"],
        skip=manifest.get("skipped", {}).get(split_name, []),
        count=count,
        **_place(fabric),
    )
    return ImageSet(batches, len(batches.classes), crop.size, len(batches.samples), tuple(batches.classes))


def plain_set(root: Path, crop: CropSettings, batch: int, fabric: Fabric) -> ImageSet:
    """A folder with one folder of images a class, for evaluation."""
    batches = FolderBatches(root, crop, batch, training=False, seed=0, **_place(fabric))
    return ImageSet(batches, len(batches.classes), crop.size, len(batches.samples), tuple(batches.classes))


def _names_in(prepared: Path) -> tuple[str, ...]:
    """The names of the classes in prepared data's manifest; none where it has none."""
    if not (prepared / "manifest.json").exists():
        return ()
    return tuple(read_manifest(prepared).get("classes") or ())


def _place(fabric: Fabric) -> dict[str, Any]:
    return {"rank": fabric.global_rank, "world": fabric.world_size, "device": fabric.device}
