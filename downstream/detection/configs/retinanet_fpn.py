"""RetinaNet + FPN on VOC 07+12, 1-bit ResNet-18, FPN 1-bit, towers real.

A tower's convolutions follow a ReLU, whose output has no sign to take: they stay real.
"""

from mmengine.config import read_base

with read_base():
    from .runtime import *  # noqa: F403
    from .voc0712 import *  # noqa: F403

from mmdet.models import (
    FPN,
    FocalLoss,
    L1Loss,
    RetinaHead,
    RetinaNet,
)
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.task_modules.samplers import PseudoSampler

from downstream.detection.backbone import GenotypeBackbone
from downstream.detection.convolution import BinaryConv

model = dict(
    type=RetinaNet,
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
        type=FPN,
        in_channels=[128, 256, 512],
        out_channels=256,
        add_extra_convs="on_input",
        num_outs=5,
        conv_cfg=dict(type=BinaryConv, pre_norm=True),
    ),
    bbox_head=dict(
        type=RetinaHead,
        num_classes=20,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=dict(
            type=AnchorGenerator,
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(
            type=DeltaXYWHBBoxCoder, target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]
        ),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type=L1Loss, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1
        ),
        sampler=dict(type=PseudoSampler),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=100,
    ),
)
