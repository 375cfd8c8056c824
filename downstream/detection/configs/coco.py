"""COCO 2017: training on train2017, evaluation on val2017 with COCO's and VOC's measures."""

from mmengine.config import read_base

with read_base():
    from .pipeline import *  # noqa: F403

from downstream.detection.datasets import CountingCocoDataset

data_root = "data/coco/"
train_dataloader.update(  # noqa: F405
    dataset=dict(
        type=CountingCocoDataset,
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,  # noqa: F405
    )
)
val_dataloader.update(  # noqa: F405
    dataset=dict(
        type=CountingCocoDataset,
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,  # noqa: F405
    )
)
test_dataloader = val_dataloader  # noqa: F405
val_evaluator[0].update(ann_file=data_root + "annotations/instances_val2017.json")  # noqa: F405
test_evaluator = val_evaluator  # noqa: F405
