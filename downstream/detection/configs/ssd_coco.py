"""SSD on COCO, 1-bit ResNet-18."""

from mmengine.config import read_base

with read_base():  # the data last: it replaces VOC's
    from .ssd import *  # noqa: F403, I001
    from .coco import *  # noqa: F403

model["bbox_head"]["num_classes"] = 80  # noqa: F405
train_pipeline[2].update(scales=[(300, 300)], keep_ratio=False)  # noqa: F405
test_pipeline[1].update(scale=(300, 300), keep_ratio=False)  # noqa: F405
train_dataloader["dataset"]["pipeline"] = train_pipeline  # noqa: F405
val_dataloader["dataset"]["pipeline"] = test_dataloader["dataset"]["pipeline"] = test_pipeline  # noqa: F405
