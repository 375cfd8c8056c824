"""COCO 2017: training on train2017, evaluation on val2017 with COCO's and VOC's measures."""

from mmengine.config import read_base

with read_base():
    from .pipeline import *  # noqa: F403

from mmdet.datasets import AspectRatioBatchSampler
from mmdet.evaluation import CocoMetric, VOCMetric
from mmengine.dataset import DefaultSampler

from downstream.detection.checkpoints import seed_worker
from downstream.detection.datasets import CountingCocoDataset

data_root = "data/coco/"
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=AspectRatioBatchSampler),
    worker_init_fn=dict(type=seed_worker),
    dataset=dict(
        type=CountingCocoDataset,
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,  # noqa: F405
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CountingCocoDataset,
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,  # noqa: F405
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type=CocoMetric, ann_file=data_root + "annotations/instances_val2017.json", metric="bbox"),
    dict(type=VOCMetric, metric="mAP", iou_thrs=0.5, eval_mode="11points"),
]
test_evaluator = val_evaluator
