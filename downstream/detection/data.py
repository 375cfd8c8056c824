"""Prepared detection data: normalised annotation files, the pictures they name, and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import InputError
from search.files import read_json
from search.manifest import NAME as MANIFEST
from search.manifest import read_manifest as manifest_of

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Order of the PASCAL VOC classes in the development kit."""


@dataclass(frozen=True)
class Part:
    """One annotated set of images.

    Attributes:
        annotations: The COCO JSON file.
        images: The folder that its file names are relative to.
    """

    annotations: Path
    images: Path


@dataclass(frozen=True)
class DetectionData:
    """A detection data set.

    Attributes:
        name, stand_in, note, sha256: What the records say about it.
        classes: Class names; a label is an index into them.
        train: What is trained on.
        test: What is evaluated on.
        left_out: How many boxes the preparation left out, of ``train`` and ``test``.
    """

    name: str
    stand_in: bool
    note: str
    sha256: str | None
    classes: tuple[str, ...]
    train: tuple[Part, ...]
    test: Part
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_manifest(path: str | Path) -> DetectionData:
    """Read ``manifest.json`` of a prepared data set as what a detector is trained on.

    Keys: name, stand_in, note, sha256, classes, root (of the pictures, relative to the manifest), counts, and
    ``train`` and ``val``, both ``{"annotations": file beside the manifest, "images": folder below root}``.
    """
    manifest, file = manifest_of(path), Path(path) / MANIFEST
    again = "prepare the detection data again: python -m pipelines.prepare detection"
    if missing := {"name", "stand_in", "format", "train", "val", "classes"} - set(manifest):
        raise InputError(f"no key {', '.join(sorted(missing))}", where=file, mend=again)
    if manifest["format"] != "coco":
        raise InputError(f"format {manifest['format']!r}", where=file, allowed="coco", mend=again)
    root = Path(manifest["root"])
    train, test = (
        Part(file.parent / manifest[split]["annotations"], root / manifest[split]["images"])
        for split in ("train", "val")
    )
    counts = manifest.get("counts", {})
    return DetectionData(
        name=manifest["name"],
        stand_in=manifest["stand_in"],
        note=manifest.get("note", ""),
        sha256=manifest.get("sha256"),
        classes=tuple(manifest["classes"]),
        train=(train,),
        test=test,
        left_out={"train": counts.get("train_left_out", 0), "test": counts.get("val_left_out", 0)},
    )


def balanced_subset(annotations: Path, count: int, seed: int) -> list[int]:
    """Places of ``count`` images in an annotation file: drawn by ``seed``, with classes as even as they can be.

    Image after image, the one is taken that comes next in a random order among those that show the class with the
    fewest boxes so far; images without a box come last.

    Args:
        annotations: A normalised file.
        count: How many; all if there are fewer.
        seed: Draws the order.

    Returns:
        Places in the file's list of images, rising.
    """
    content = read_json(annotations)
    places = {image["id"]: place for place, image in enumerate(content["images"])}
    shows: dict[int, list[int]] = {place: [] for place in places.values()}
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            shows[places[entry["image_id"]]].append(entry["category_id"])
    order = [int(place) for place in np.random.default_rng(seed).permutation(len(shows))]
    queues = {
        category["id"]: [place for place in reversed(order) if category["id"] in shows[place]]
        for category in content["categories"]
    }
    boxes = dict.fromkeys(queues, 0)
    chosen: set[int] = set()
    while len(chosen) < count and queues:
        rarest = min(queues, key=lambda category: (boxes[category], category))
        place = _next(queues[rarest], chosen)
        if place is None:
            del queues[rarest]
            continue
        chosen.add(place)
        for category in shows[place]:
            boxes[category] = boxes.get(category, 0) + 1
    rest = [place for place in order if place not in chosen]
    return sorted([*chosen, *rest[: max(count - len(chosen), 0)]])


def _next(queue: list[int], chosen: set[int]) -> int | None:
    while queue:
        place = queue.pop()
        if place not in chosen:
            return place
    return None


def require_boxes(annotations: Path, places: list[int], setting: str) -> None:
    """Refuse a subset of test images without a box that counts.

    Args:
        annotations: A normalised file.
        places: What :func:`balanced_subset` gave.
        setting: The setting that asks for so few.
    """
    content: dict[str, Any] = read_json(annotations)
    chosen = {content["images"][place]["id"] for place in places}
    if not any(entry["image_id"] in chosen and not entry["iscrowd"] for entry in content["annotations"]):
        raise InputError(
            "none of the images has a box to evaluate", where=setting, mend="raise it, or 0 for all"
        )
