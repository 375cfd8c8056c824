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
            normalised annotation file: label + 1), bbox [x, y, width, height] in pixels of the picture, score.
    """

    export: Path | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO's measures; nothing where there was no detection at all."""
        if self.export is not None:
            write_json(self.export, [row for _, found in results for row in _rows(self, found)])
        found: list[Any] = []

        class Kept(coco_metric.COCOeval):
            def summarize(self) -> None:
                super().summarize()
                found[:] = [float(value) for value in self.stats]

        with patch.object(coco_metric, "COCOeval", Kept):
            rounded = super().compute_metrics(results)
        return {key: found[STATS[key.removeprefix("bbox_")]] for key in rounded}


def _rows(metric: CocoMetric, found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": found["img_id"],
            "category_id": int(label) + 1,
            "bbox": metric.xyxy2xywh(box),
            "score": float(score),
        }
        for box, label, score in zip(found["bboxes"], found["labels"], found["scores"], strict=True)
    ]
