"""PASCAL VOC 07+12 as it was prepared: training on trainval three times an epoch, evaluation on 07 test, 11 points."""

from mmengine.config import read_base

with read_base():
    from .pipeline import *  # noqa: F403

from mmengine.dataset import RepeatDataset

train_dataloader["dataset"] = dict(type=RepeatDataset, times=3, dataset=training_set)  # noqa: F405
