"""Class folders for the ImageNet path: the user's own, or a stand-in made from CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.datasets import cifar10, layout
from pipelines.datasets.class_folders import check_class_folders
from pipelines.datasets.manifest import ContentHash, write_manifest
from pipelines.datasets.opened import say
from pipelines.datasets.settings import ImageFolderData, UpscaledImages
from pipelines.stage import output_folder

STAND_IN = "cifar10-folder"


def prepare(settings: ImageFolderData, target: Path, cifar10_folder: Path) -> None:
    """Write ``target``: the stand-in's pictures and a manifest, or a manifest of the user's folder."""
    if settings.stand_in is not None and settings.kind == STAND_IN:
        _make(settings.stand_in, target, cifar10.load(cifar10_folder))
    else:
        _describe(settings, target)


def _make(settings: UpscaledImages, target: Path, arrays: cifar10.Arrays) -> None:
    content = ContentHash()
    with output_folder(target) as folder:
        train = _write_split(folder, "train", arrays, "train", settings, settings.train_per_class, content)
        val = _write_split(folder, "val", arrays, "test", settings, settings.val_per_class, content)
        write_manifest(
            folder,
            name=STAND_IN,
            stand_in=True,
            note=f"stand-in for ImageNet: CIFAR-10 pictures upscaled from 32 to {settings.size} pixels, "
            "train from its training set, val from its test set",
            sha256=content.hex(),
            counts={"train_images": train, "val_images": val, "classes": len(cifar10.CLASSES)},
            classes=sorted(cifar10.CLASSES),
            size=settings.size,
        )


def _write_split(
    folder: Path,
    split: str,
    arrays: cifar10.Arrays,
    source: str,
    settings: UpscaledImages,
    per_class: int,
    content: ContentHash,
) -> int:
    """Write one split; a file's number is the picture's index in CIFAR-10. Gives the number of pictures."""
    labels = np.asarray(arrays[f"{source}_labels"])
    for label, name in enumerate(cifar10.CLASSES):
        random = np.random.default_rng([settings.seed, split == "val", label])
        chosen = random.permutation(np.flatnonzero(labels == label))[:per_class]
        place = folder / split / name
        place.mkdir(parents=True)
        for index in np.sort(chosen):
            picture = upscale(arrays[f"{source}_images"][index], settings.size, settings.size)
            picture.save(place / f"{index:05d}.png", compress_level=1)
            content.add(f"{split}/{name}/{index:05d}.png", np.asarray(picture))
    return sum(1 for _ in (folder / split).glob("*/*.png"))


def upscale(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    """A picture of shape (32, 32, 3) at another size, bicubic."""
    return Image.fromarray(np.asarray(pixels)).resize((width, height), Image.Resampling.BICUBIC)


def _describe(settings: ImageFolderData, target: Path) -> None:
    root = layout.existing_folder(settings.folder, "data.imagenet.folder")
    found = check_class_folders(root, settings.classes, settings.verify, settings.damaged)
    layout.describe(target, root, str(settings.name), found, hashed="the names and sizes of the files used")
    say(found.more["said"])
