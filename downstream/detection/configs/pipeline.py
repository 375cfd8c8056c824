"""What all data sets share: multi-scale training, one test scale (IDa-Det), the prepared data, loaders and measures."""

from mmcv.transforms import RandomChoiceResize
from mmdet.datasets import AspectRatioBatchSampler
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.evaluation import VOCMetric
from mmdet.models import DetDataPreprocessor
from mmengine.dataset import DefaultSampler

from downstream.detection.checkpoints import seed_worker
from downstream.detection.datasets import LoadPicture, PreparedDataset
from downstream.detection.metrics import ExactCocoMetric

train_pipeline = [
    dict(type=LoadPicture),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(
        type=RandomChoiceResize,
        resize_type=Resize,
        scales=[(1500, 900), (1000, 600), (666, 400)],
        keep_ratio=True,
    ),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadPicture),
    dict(type=Resize, scale=(1000, 600), keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(
        type=PackDetInputs,
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances"),
    ),
]
normalisation = dict(
    type=DetDataPreprocessor,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
data_root = "data/detection"  # what `python -m pipelines.prepare detection` wrote
training_set = dict(type=PreparedDataset, folder=data_root, split="train", pipeline=train_pipeline)
test_set = dict(type=PreparedDataset, folder=data_root, split="val", test_mode=True, pipeline=test_pipeline)
train_dataloader = dict(
    dataset=training_set,
    batch_size=4,
    num_workers=2,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=AspectRatioBatchSampler),
    worker_init_fn=dict(type=seed_worker),
)
val_dataloader = dict(
    dataset=test_set,
    batch_size=1,
    num_workers=2,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type=ExactCocoMetric, metric="bbox"),
    dict(type=VOCMetric, metric="mAP", iou_thrs=0.5, eval_mode="11points"),
]
test_evaluator = val_evaluator
