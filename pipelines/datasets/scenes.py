"""The stand-in for detection: scenes composed from CIFAR-10 pictures on textured backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.datasets import cifar10, coco
from pipelines.datasets.coco import Box
from pipelines.datasets.image_folder import upscale
from pipelines.datasets.manifest import ContentHash, write_manifest
from pipelines.datasets.settings import Scenes
from pipelines.stage import output_folder

STAND_IN = "cifar10-scenes"
ATTEMPTS = 50  # places tried for an object before the scene goes without it


def make(settings: Scenes, target: Path, arrays: cifar10.Arrays) -> None:
    """Write the scenes, train from CIFAR-10's training set and val from its test set.

    Args:
        settings: Sizes, counts and the seed.
        target: The prepared data set's folder.
        arrays: CIFAR-10.
    """
    content, counts = ContentHash(), {"classes": len(cifar10.CLASSES)}
    with output_folder(target) as folder:
        for split, source, images in (
            ("train", "train", settings.train_images),
            ("val", "test", settings.val_images),
        ):
            writer = coco.SplitWriter(folder, split, cifar10.CLASSES, content)
            pictures, labels = arrays[f"{source}_images"], np.asarray(arrays[f"{source}_labels"])
            for number in range(1, images + 1):
                random = np.random.default_rng([settings.seed, split == "val", number])
                writer.add(f"{number:06d}.png", *compose(random, pictures, labels, settings))
            counts |= writer.close()
        write_manifest(
            folder,
            name=STAND_IN,
            stand_in=True,
            note="stand-in for VOC and COCO: CIFAR-10 pictures of random size on textured backgrounds; "
            "train from its training set, val from its test set; exact boxes",
            sha256=content.hex(),
            counts=counts,
            **coco.layout_of(cifar10.CLASSES),
            size=settings.size,
        )


def compose(
    random: np.random.Generator, images: np.ndarray, labels: np.ndarray, settings: Scenes
) -> tuple[np.ndarray, list[Box]]:
    """Draw one scene.

    Args:
        random: The scene's own generator.
        images: uint8 of shape (N, 32, 32, 3).
        labels: N class indices.
        settings: Sizes and counts.

    Returns:
        The scene, uint8 of shape (size, size, 3), and its boxes; a later object lies over an earlier one.
    """
    scene = Image.fromarray(background(random, settings.size))
    boxes: list[Box] = []
    for _ in range(random.integers(settings.min_objects, settings.max_objects, endpoint=True)):
        index = int(random.integers(len(images)))
        box = _place(random, int(labels[index]), boxes, settings)
        if box is not None:
            scene.paste(upscale(images[index], int(box.width), int(box.height)), (int(box.x), int(box.y)))
            boxes.append(box)
    return np.asarray(scene), boxes


def _place(random: np.random.Generator, label: int, boxes: list[Box], settings: Scenes) -> Box | None:
    """A box for a new object; None if none that is tried lies free enough."""
    for _ in range(ATTEMPTS):
        longer = int(random.integers(settings.min_object, settings.max_object, endpoint=True))
        shorter = max(settings.min_object, round(longer / random.uniform(1, settings.max_aspect)))
        width, height = (longer, shorter) if random.random() < 0.5 else (shorter, longer)
        x, y = (int(random.integers(settings.size - edge, endpoint=True)) for edge in (width, height))
        box = Box(x, y, width, height, label)
        if all(box.shared(other) <= settings.max_overlap for other in boxes):
            return box
    return None


def background(random: np.random.Generator, size: int) -> np.ndarray:
    """A texture of shape (size, size, 3), uint8: noise at four scales, from blotches to grain.

    Most of the noise is common to the channels, so that colour alone does not tell texture from picture.
    """
    total = np.zeros((size, size, 3), np.float32)
    for cells, strength in ((3, 45.0), (9, 30.0), (27, 20.0), (size // 2, 12.0)):
        common, own = random.standard_normal((1, cells, cells)), random.standard_normal((3, cells, cells))
        noise = (0.9 * common + 0.3 * own).astype(np.float32)
        layers = [Image.fromarray(layer).resize((size, size), Image.Resampling.BICUBIC) for layer in noise]
        total += strength * np.stack([np.asarray(layer) for layer in layers], axis=-1)
    colour = (random.uniform(80, 175) + random.uniform(-25, 25, 3)).astype(np.float32)
    return np.clip(total + colour, 0, 255).astype(np.uint8)
