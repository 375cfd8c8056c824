"""COCO 2017 as it was prepared: each training image once an epoch."""

from mmengine.config import read_base

with read_base():
    from .pipeline import *  # noqa: F403

train_dataloader["dataset"] = training_set  # noqa: F405
