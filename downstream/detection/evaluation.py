"""COCO's and VOC's measures of a Runner's detector, after the training or in its midst."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from downstream.detection.metrics import ExactCocoMetric

KEYS = {"coco_map": "coco/bbox_mAP", "coco_map50": "coco/bbox_mAP_50", "voc_map50": "pascal_voc/mAP"}


def evaluate(runner: Any, *, in_training: bool = False, export: Path | None = None) -> dict[str, float]:
    """COCO's mAP and mAP@0.5 and VOC's 11-point mAP@0.5 of the Runner's model, in [0, 1], in one pass.

    CocoMetric gives nothing when there was no detection at all: that is 0. A measure that the test loop lacks is
    left out.

    Args:
        runner: With a test loop of one or both measures.
        in_training: Called by a hook: the run has begun already. The model is left in evaluation mode, which
            the next epoch ends.
        export: Where the detections go as a COCO results file; see
            :class:`downstream.detection.metrics.ExactCocoMetric`.
    """
    with quiet(), threads_for_processes():
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, ExactCocoMetric):
                metric.export = export
        values = runner.test_loop.run() if in_training else runner.test()
    measured = {metric.prefix for metric in runner.test_loop.evaluator.metrics}
    return {
        key: float(values.get(name, 0.0)) for key, name in KEYS.items() if name.partition("/")[0] in measured
    }


@contextlib.contextmanager
def threads_for_processes() -> Iterator[None]:
    """Let VOCMetric match boxes in threads: it forks worker processes, and a fork of torch's threads can hang."""
    from multiprocessing.pool import ThreadPool

    from mmdet.evaluation.functional import mean_ap

    forking = mean_ap.Pool
    mean_ap.Pool = ThreadPool
    try:
        yield
    finally:
        mean_ap.Pool = forking


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pycocotools' prints off standard output, which belongs to results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
