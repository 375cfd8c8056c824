"""RetinaNet + FPN on COCO, 1-bit ResNet-18."""

from mmengine.config import read_base

with read_base():  # the data last: it replaces VOC's
    from .retinanet_fpn import *  # noqa: F403, I001
    from .coco import *  # noqa: F403

model["bbox_head"]["num_classes"] = 80  # noqa: F405
