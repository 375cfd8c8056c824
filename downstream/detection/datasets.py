"""COCO and VOC datasets that count the boxes they skip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downstream.detection import operators

operators.install()

from mmdet.datasets import CocoDataset, VOCDataset  # noqa: E402
from mmdet.registry import DATASETS  # noqa: E402


def degenerate(box: list[float]) -> bool:
    """Whether a box x1, y1, x2, y2 has no area."""
    return box[2] <= box[0] or box[3] <= box[1]


def skipped_boxes(dataset: Any) -> int:
    """Boxes without area that a data set left out, also one that repeats or joins others of this module."""
    if hasattr(dataset, "datasets"):
        return sum(skipped_boxes(part) for part in dataset.datasets)
    return skipped_boxes(dataset.dataset) if hasattr(dataset, "dataset") else int(dataset.skipped_boxes)


@DATASETS.register_module(force=True)
class CountingCocoDataset(CocoDataset):
    """CocoDataset that knows how many boxes without area it left out (``skipped_boxes``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.skipped_boxes = 0
        super().__init__(*args, **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """One image with its boxes; boxes of no area are counted (CocoDataset itself drops them)."""
        for annotation in raw_data_info["raw_ann_info"]:
            x, y, width, height = annotation["bbox"]
            self.skipped_boxes += degenerate([x, y, x + width, y + height])
        return super().parse_data_info(raw_data_info)


@DATASETS.register_module(force=True)
class CountingVOCDataset(VOCDataset):
    """VOCDataset that leaves out boxes without area and counts them (``skipped_boxes``).

    VOCDataset keeps them, and the box regression target log(0 / anchor) is then minus infinity. Pictures may
    be PNG too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.skipped_boxes = 0
        super().__init__(*args, **kwargs)

    def parse_data_info(self, img_info: dict) -> dict | list[dict]:
        """One image with its boxes; the picture is the JPEG of that name, else the PNG."""
        jpeg = Path(self.sub_data_root, img_info["file_name"])
        if not jpeg.is_file() and jpeg.with_suffix(".png").is_file():
            img_info = {**img_info, "file_name": str(Path(img_info["file_name"]).with_suffix(".png"))}
        return super().parse_data_info(img_info)

    def _parse_instance_info(self, raw_ann_info: Any, minus_one: bool = True) -> list[dict]:
        instances = super()._parse_instance_info(raw_ann_info, minus_one)
        kept = [instance for instance in instances if not degenerate(instance["bbox"])]
        self.skipped_boxes += len(instances) - len(kept)
        return kept
