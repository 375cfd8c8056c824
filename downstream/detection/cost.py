"""OPs and Mbit of a detector: the backbone alone, and everything that runs on a test image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search.cost import CostReport, count


def count_backbone(detector: nn.Module, size: tuple[int, int]) -> CostReport:
    """Cost of the backbone for one image of (height, width)."""
    return count(detector.backbone, (3, *size))  # type: ignore[arg-type]


def count_detector(detector: nn.Module, size: tuple[int, int]) -> CostReport:
    """Cost of backbone, neck and heads for one image of (height, width), not padded.

    A two-stage detector's box head runs on as many regions as its RPN keeps in test. Decoding of boxes, NMS
    and RoIAlign have no convolution or linear layer and count as nothing, as everywhere in the literature.
    """
    return count(detector, (3, *size), forward=_run)


def _run(detector: Any, images: Tensor) -> None:
    maps = detector.extract_feat(images)
    if not getattr(detector, "with_rpn", False):
        detector.bbox_head(maps)
        return
    detector.rpn_head(maps)
    head = detector.roi_head.bbox_head
    side = detector.roi_head.bbox_roi_extractor.roi_layers[0].output_size
    regions = images.shape[0] * detector.test_cfg.rpn.max_per_img
    head(torch.empty(regions, maps[0].shape[1], *side, dtype=images.dtype, device=images.device))
