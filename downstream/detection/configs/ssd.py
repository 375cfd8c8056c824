"""SSD on VOC 07+12 at 300 pixels, 1-bit ResNet-18: maps of stride 8 to 32 and two more behind them."""

from mmengine.config import read_base

with read_base():
    from .runtime import *  # noqa: F403
    from .voc0712 import *  # noqa: F403

from mmdet.models import (
    SingleStageDetector,
    SSDNeck,
)
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import SSDAnchorGenerator
from mmdet.models.task_modules.samplers import PseudoSampler

from downstream.detection.backbone import GenotypeBackbone
from downstream.detection.heads import SSDPredictionHead

normalisation.update(pad_size_divisor=1)  # noqa: F405
model = dict(
    type=SingleStageDetector,
    data_preprocessor=normalisation,  # noqa: F405
    backbone=dict(
        type=GenotypeBackbone,
        network="resnet-18",
        precision="1bit",
        out_strides=(8, 16, 32),
        frozen_stages=0,
        norm_eval=True,
    ),
    neck=dict(
        type=SSDNeck,
        in_channels=(128, 256, 512),
        out_channels=(128, 256, 512, 256, 256),
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scale=None,
        norm_cfg=dict(type="BN"),
    ),
    bbox_head=dict(
        type=SSDPredictionHead,
        in_channels=(128, 256, 512, 256, 256),
        num_classes=20,
        anchor_generator=dict(
            type=SSDAnchorGenerator,
            scale_major=False,
            strides=[8, 16, 32, 64, 128],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2]],
            min_sizes=[30, 75, 120, 165, 210],
            max_sizes=[75, 120, 165, 210, 255],
        ),
        bbox_coder=dict(
            type=DeltaXYWHBBoxCoder, target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type=MaxIoUAssigner,
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type=PseudoSampler),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.02,
        nms=dict(type="nms", iou_threshold=0.45),
        max_per_img=200,
    ),
)
train_pipeline[2].update(scales=[(300, 300)], keep_ratio=False)  # noqa: F405
test_pipeline[1].update(scale=(300, 300), keep_ratio=False)  # noqa: F405
train_dataloader["dataset"]["dataset"]["pipeline"] = train_pipeline  # noqa: F405
val_dataloader["dataset"]["pipeline"] = test_dataloader["dataset"]["pipeline"] = test_pipeline  # noqa: F405
