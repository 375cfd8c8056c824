"""Detection data: the user's VOC or COCO folder, or a stand-in: scenes composed from CIFAR-10 pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.datasets import cifar10, layout, layout_detection
from pipelines.datasets.image_folder import upscale
from pipelines.datasets.manifest import ContentHash, write_manifest
from pipelines.datasets.settings import SceneData, Scenes
from pipelines.stage import output_folder
from search.files import write_json

STAND_IN = "cifar10-scenes"
ATTEMPTS = 50  # places tried for an object before the scene goes without it


@dataclass(frozen=True)
class Box:
    """An object's place in pixels (left, top, width, height) and its class index."""

    x: int
    y: int
    width: int
    height: int
    label: int

    def shared(self, other: Box) -> float:
        """The overlap's area as a part of the smaller of the two boxes."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        smaller = min(self.width * self.height, other.width * other.height)
        return max(width, 0) * max(height, 0) / smaller


def prepare(settings: SceneData, target: Path, cifar10_folder: Path) -> None:
    """Write ``target``: the stand-in's scenes and a manifest, or a manifest of the user's folder."""
    if settings.stand_in is not None and settings.kind == STAND_IN:
        _make(settings.stand_in, target, cifar10.load(cifar10_folder))
    else:
        _describe(settings, target)


def _make(settings: Scenes, target: Path, arrays: cifar10.Arrays) -> None:
    content, counts = ContentHash(), {"classes": len(cifar10.CLASSES)}
    with output_folder(target) as folder:
        for split, source, images in (
            ("train", "train", settings.train_images),
            ("val", "test", settings.val_images),
        ):
            counts[f"{split}_images"] = images
            counts[f"{split}_boxes"] = _write_split(folder, split, source, images, settings, arrays, content)
        write_manifest(
            folder,
            name=STAND_IN,
            stand_in=True,
            note="stand-in for VOC and COCO: CIFAR-10 pictures of random size on textured backgrounds; "
            "train from its training set, val from its test set; exact boxes",
            sha256=content.hex(),
            counts=counts,
            format="coco",
            classes=list(cifar10.CLASSES),
            train={"annotations": "annotations/train.json", "images": "images/train"},
            val={"annotations": "annotations/val.json", "images": "images/val"},
            size=settings.size,
        )


def _write_split(
    folder: Path,
    split: str,
    source: str,
    images: int,
    settings: Scenes,
    arrays: cifar10.Arrays,
    content: ContentHash,
) -> int:
    """Write one split's pictures and its COCO JSON; give the number of boxes."""
    place = folder / "images" / split
    place.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        random = np.random.default_rng([settings.seed, split == "val", number])
        scene, boxes = compose(
            random, arrays[f"{source}_images"], np.asarray(arrays[f"{source}_labels"]), settings
        )
        name = f"{number:06d}.png"
        Image.fromarray(scene).save(place / name, compress_level=1)
        content.add(f"{split}/{name}", scene)
        content.text(repr(boxes))
        entries.append({"id": number, "file_name": name, "width": settings.size, "height": settings.size})
        annotations += [_annotation(len(annotations) + i, number, box) for i, box in enumerate(boxes, 1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(cifar10.CLASSES, 1)]
    coco = {"images": entries, "annotations": annotations, "categories": categories}
    write_json(folder / "annotations" / f"{split}.json", coco)
    return len(annotations)


def _annotation(identity: int, image: int, box: Box) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image,
        "category_id": box.label + 1,
        "bbox": [box.x, box.y, box.width, box.height],
        "area": box.width * box.height,
        "iscrowd": 0,
    }


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
            scene.paste(upscale(images[index], box.width, box.height), (box.x, box.y))
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


def _describe(settings: SceneData, target: Path) -> None:
    root = layout.existing_folder(settings.folder, "data.detection.folder")
    train, val = settings.train or [], settings.val or []
    check = layout_detection.check_voc if settings.kind == "voc" else layout_detection.check_coco
    found = check(root, train, val, settings.classes)
    with output_folder(target) as folder:
        write_manifest(
            folder,
            name=str(settings.name),
            stand_in=False,
            note="the user's folder; sha256 is over annotations and the list of picture names and sizes",
            sha256=found.sha256,
            counts=found.counts,
            root=str(root),
            format=settings.kind,
            classes=found.classes,
            **found.more,
        )
