"""PASCAL VOC: training on 07+12 trainval three times an epoch, evaluation on 07 test, 11 points."""

from mmengine.config import read_base

with read_base():
    from .pipeline import *  # noqa: F403

from mmengine.dataset import ConcatDataset, RepeatDataset

from downstream.detection.datasets import CountingVOCDataset

data_root = "data/VOCdevkit/"
trainval = [
    dict(
        type=CountingVOCDataset,
        data_root=data_root,
        ann_file=f"{year}/ImageSets/Main/trainval.txt",
        data_prefix=dict(sub_data_root=f"{year}/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=None),
        pipeline=train_pipeline,  # noqa: F405
    )
    for year in ("VOC2007", "VOC2012")
]
train_dataloader.update(  # noqa: F405
    dataset=dict(
        type=RepeatDataset,
        times=3,
        dataset=dict(type=ConcatDataset, ignore_keys=["dataset_type"], datasets=trainval),
    )
)
val_dataloader.update(  # noqa: F405
    dataset=dict(
        type=CountingVOCDataset,
        data_root=data_root,
        ann_file="VOC2007/ImageSets/Main/test.txt",
        data_prefix=dict(sub_data_root="VOC2007/"),
        test_mode=True,
        pipeline=test_pipeline,  # noqa: F405
    )
)
test_dataloader = val_dataloader  # noqa: F405
test_evaluator = val_evaluator  # noqa: F405
