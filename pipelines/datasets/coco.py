"""The normalised annotation file: COCO JSON with contiguous ids in one class order, which every stage reads.

Category ids are 1, 2, ... in the order of the classes, annotation ids 1, 2, ...; ``area`` is that of the box;
``iscrowd`` is 1 for every ignored region (neither right nor wrong in evaluation, never trained on), and ``difficult``
for those among them that are marked so; ``turn`` of an image is 1 where its EXIF orientation must be applied for its
boxes to fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.datasets.manifest import ContentHash
from search.files import write_text


@dataclass(frozen=True)
class Box:
    """An object's place in pixels (left, top, width, height), its class index, and how it is marked."""

    x: float
    y: float
    width: float
    height: float
    label: int
    # not in the repr, which the stand-ins' content hash is over
    crowd: bool = field(default=False, repr=False)
    difficult: bool = field(default=False, repr=False)

    @property
    def ignored(self) -> bool:
        """Whether it is an ignored region."""
        return self.crowd or self.difficult

    def shared(self, other: Box) -> float:
        """The overlap's area as a part of the smaller of the two boxes."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        smaller = min(self.width * self.height, other.width * other.height)
        return max(width, 0) * max(height, 0) / smaller


class AnnotationWriter:
    """Collects the images and boxes of one split and writes its annotation file.

    Args:
        classes: The class names; a box's label is an index into them.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]

    def add(
        self,
        name: str,
        size: tuple[int, int],
        boxes: Sequence[Box],
        *,
        identity: int | None = None,
        turn: bool = False,
    ) -> None:
        """Note one picture.

        Args:
            name: Its file, below the folder of the split's pictures.
            size: Width and height, in the pixels that the boxes are given in.
            boxes: Its boxes.
            identity: Its image id; by default its number, counted from 1.
            turn: Whether the EXIF orientation is to be applied.
        """
        identity = len(self.images) + 1 if identity is None else identity
        image = {"id": identity, "file_name": name, "width": size[0], "height": size[1]}
        self.images.append({**image, "turn": 1} if turn else image)
        self.annotations += [
            {
                "id": len(self.annotations) + i,
                "image_id": identity,
                "category_id": box.label + 1,
                "bbox": [box.x, box.y, box.width, box.height],
                "area": box.width * box.height,
                "iscrowd": int(box.ignored),
                "difficult": int(box.difficult),
            }
            for i, box in enumerate(boxes, 1)
        ]

    def text(self) -> str:
        """The file's content: one line an image and a box."""
        lists = (
            ("images", self.images),
            ("annotations", self.annotations),
            ("categories", self._categories),
        )
        joined = ((key, ",\n".join(map(_line, entries))) for key, entries in lists)
        return "{" + ",\n".join(f'"{key}": [\n{lines}\n]' for key, lines in joined) + "}\n"


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False, ensure_ascii=False)


class SplitWriter:
    """Writes one split of a set that this suite makes: ``images/<split>/*.png``, and its annotation file at the end.

    Args:
        folder: The data set's folder.
        split: ``train`` or ``val``.
        classes: The class names; a box's label is an index into them.
        content: Takes in every picture and its boxes.
    """

    def __init__(self, folder: Path, split: str, classes: Sequence[str], content: ContentHash) -> None:
        self._folder, self._split, self._content = folder, split, content
        self._writer = AnnotationWriter(classes)
        (folder / "images" / split).mkdir(parents=True)

    def add(self, name: str, pixels: np.ndarray, boxes: Sequence[Box]) -> None:
        """Write one picture, uint8 of shape (height, width, 3), and note its boxes."""
        Image.fromarray(pixels).save(self._folder / "images" / self._split / name, compress_level=1)
        self._content.add(f"{self._split}/{name}", pixels)
        self._content.text(repr(list(boxes)))
        height, width = pixels.shape[:2]
        self._writer.add(name, (width, height), boxes)

    def close(self) -> dict[str, int]:
        """Write the annotation file; give the split's counts for the manifest."""
        write_text(self._folder / annotation_file(self._split), self._writer.text())
        images, boxes = len(self._writer.images), len(self._writer.annotations)
        return {f"{self._split}_images": images, f"{self._split}_boxes": boxes}


def annotation_file(split: str) -> str:
    """Where the annotation file of a split lies in the prepared data set's folder."""
    return f"annotations/{split}.json"


def layout_of(classes: Sequence[str], images: dict[str, str] | None = None) -> dict[str, Any]:
    """What the manifest of such a set says of its layout.

    Args:
        classes: The class names.
        images: The folder of each split's pictures below the root; by default ``images/<split>``.
    """
    folders = images or {split: f"images/{split}" for split in ("train", "val")}
    parts = {
        split: {"annotations": annotation_file(split), "images": folder} for split, folder in folders.items()
    }
    return {"format": "coco", "classes": list(classes), **parts}
