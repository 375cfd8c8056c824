"""COCO's measure without rounding, and the detections it was computed from as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS

from search.files import write_json

STATS = {"mAP": 0, "mAP_50": 1, "mAP_75": 2, "mAP_s": 3, "mAP_m": 4, "mAP_l": 5}
"""Places of COCOeval's measures in its ``stats``."""


@METRICS.register_module(force=True)
class ExactCocoMetric(CocoMetric):
    """CocoMetric whose values are not rounded to three decimals.

    Attributes:
        export: Where the detections go as a COCO results file, or None: a list of image_id, category_id (of the
            annotation file; of a normalised one label + 1), bbox [x, y, width, height] in the picture's pixels, score.
    """

    export: Path | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO's measures; nothing where there was no detection at all."""
        categories = self._categories()
        found: list[Any] = []

        class Kept(coco_metric.COCOeval):
            def summarize(self) -> None:
                super().summarize()
                found[:] = [float(value) for value in self.stats]

        with patch.object(coco_metric, "COCOeval", Kept):
            rounded = super().compute_metrics(results)
        if self.export is not None:
            write_json(self.export, [row for _, one in results for row in _rows(one, categories)])
        return {key: found[STATS[key.removeprefix("bbox_")]] for key in rounded}

    def _categories(self) -> list[int]:
        """The category id of each label: by name in the annotation file if one was given, else counted from 1."""
        names = list(self.dataset_meta["classes"])
        if self._coco_api is None:
            return list(range(1, len(names) + 1))
        ids = {entry["name"]: entry["id"] for entry in self._coco_api.dataset["categories"]}
        self.cat_ids = [ids[name] for name in names if name in ids]
        return self.cat_ids


def _rows(found: dict[str, Any], categories: list[int]) -> list[dict[str, Any]]:
    rows = zip(found["bboxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": found["img_id"],
            "category_id": categories[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), label, score in rows
    ]
