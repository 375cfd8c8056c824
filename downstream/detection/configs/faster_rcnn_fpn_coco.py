"""Faster R-CNN + FPN on COCO, 1-bit ResNet-18, FPN and RPN 1-bit."""

from mmengine.config import read_base

with read_base():  # the data last: it replaces VOC's
    from .faster_rcnn_fpn import *  # noqa: F403, I001
    from .coco import *  # noqa: F403

model["roi_head"]["bbox_head"]["num_classes"] = 80  # noqa: F405
