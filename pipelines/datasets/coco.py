"""Detection sets that this suite makes itself: PNG pictures and one COCO JSON file a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.datasets.manifest import ContentHash
from search.files import write_json


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


class SplitWriter:
    """Writes one split: ``images/<split>/*.png``, and ``annotations/<split>.json`` at the end.

    Args:
        folder: The data set's folder.
        split: ``train`` or ``val``.
        classes: The class names; a box's label is an index into them.
        content: Takes in every picture and its boxes.
    """

    def __init__(self, folder: Path, split: str, classes: Sequence[str], content: ContentHash) -> None:
        self.boxes = 0
        self._folder, self._split, self._content = folder, split, content
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        (folder / "images" / split).mkdir(parents=True)

    def add(self, name: str, pixels: np.ndarray, boxes: Sequence[Box]) -> None:
        """Write one picture, uint8 of shape (height, width, 3), and note its boxes."""
        Image.fromarray(pixels).save(self._folder / "images" / self._split / name, compress_level=1)
        self._content.add(f"{self._split}/{name}", pixels)
        self._content.text(repr(list(boxes)))
        number = len(self._images) + 1
        height, width = pixels.shape[:2]
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        self._annotations += [self._annotation(self.boxes + i, number, box) for i, box in enumerate(boxes, 1)]
        self.boxes += len(boxes)

    @staticmethod
    def _annotation(identity: int, image: int, box: Box) -> dict[str, Any]:
        return {
            "id": identity,
            "image_id": image,
            "category_id": box.label + 1,
            "bbox": [box.x, box.y, box.width, box.height],
            "area": box.width * box.height,
            "iscrowd": 0,
        }

    def close(self) -> dict[str, int]:
        """Write the annotation file; give the split's counts for the manifest."""
        lists = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        write_json(self._folder / "annotations" / f"{self._split}.json", lists)
        return {f"{self._split}_images": len(self._images), f"{self._split}_boxes": self.boxes}


def layout_of(classes: Sequence[str]) -> dict[str, Any]:
    """What the manifest of such a set says of its layout."""
    parts = {
        split: {"annotations": f"annotations/{split}.json", "images": f"images/{split}"}
        for split in ("train", "val")
    }
    return {"format": "coco", "classes": list(classes), **parts}
