"""From settings to a complete MMEngine config: one of our config files with the values put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from downstream.detection.data import DetectionData, Part, balanced_subset, require_boxes
from downstream.detection.settings import DetectionSettings

CONFIGS = Path(__file__).parent / "configs"
FILES = {"faster_rcnn": "faster_rcnn_fpn", "retinanet": "retinanet_fpn", "ssd": "ssd"}
STRIDES = {"faster_rcnn": (4, 8, 16, 32), "retinanet": (8, 16, 32), "ssd": (8, 16, 32)}
NMS_POOL = 2
"""Candidates before NMS per region kept after it (mmdet: 2000 for 1000)."""
SUBSET_SEED = 0
"""Draws the images of `train_images` and `test_images`: the same ones for every run's own seed."""
SSD_SIZES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
"""Anchor sides of SSD's five levels as shares of the image's shorter side, and the last level's upper one."""


@dataclass(frozen=True)
class BackboneSpec:
    """Which network stands behind the detector.

    Attributes:
        network: Published or hand-made name, or a genotype's content.
        precision: ``1bit`` or ``real``.
        form, channels, cells, style: As in :class:`downstream.detection.backbone.GenotypeBackbone`.
        weights: safetensors of the retraining stage, or None.
    """

    network: str | Mapping[str, Any]
    precision: str
    form: str
    channels: int | None
    cells: int | None
    style: Mapping[str, Any] | None = None
    weights: str | None = None


def compose(
    settings: DetectionSettings, spec: BackboneSpec, data: DetectionData, *, seed: int, folder: Path
) -> Any:
    """The config (``mmengine.config.Config``) of one training.

    Args:
        settings: Values of the profile.
        spec: The backbone.
        data: The data set.
        seed: Seed of initialisation, sampling and flips.
        folder: Working folder of the run (checkpoints, logs).
    """
    from mmengine.config import Config

    import downstream.detection.modules  # noqa: F401 - registers our types

    config = Config.fromfile(CONFIGS / f"{FILES[settings.detector]}.py", format_python_code=False)
    _set_backbone(config, settings, spec)
    widths = backbone_channels(config)
    {"faster_rcnn": _set_faster_rcnn, "retinanet": _set_retinanet, "ssd": _set_ssd}[settings.detector](
        config, settings, widths, len(data.classes), settings.binary_neck and spec.precision == "1bit"
    )
    _set_schedule(config, settings)
    _set_data(config, settings, data)
    # RoIAlign's gradient on CUDA adds in any order, and torch's deterministic mode refuses to run it.
    config.randomness = {"seed": seed, "deterministic": not torch.cuda.is_available()}
    config.work_dir = str(folder)
    config.log_level = "ERROR"
    config.visualizer.vis_backends = None
    return config


def backbone_channels(config: Any) -> list[int]:
    """Channels of the maps that the config's backbone returns."""
    from mmdet.registry import MODELS

    return list(MODELS.build({**config.model.backbone, "weights": None}).out_channels)


def _set_backbone(config: Any, settings: DetectionSettings, spec: BackboneSpec) -> None:
    config.model.backbone.update(
        network=spec.network,
        precision=spec.precision,
        form=spec.form,
        channels=spec.channels,
        cells=spec.cells,
        style=spec.style,
        weights=spec.weights,
        out_strides=STRIDES[settings.detector],
        frozen_stages=settings.frozen_stages,
        norm_eval=settings.norm_eval,
    )


def _final(settings: DetectionSettings) -> dict[str, Any]:
    return {
        "score_thr": settings.score_threshold,
        "nms": {"type": "nms", "iou_threshold": settings.nms_iou},
        "max_per_img": settings.max_per_image,
    }


def _set_neck(config: Any, settings: DetectionSettings, widths: list[int], binary: bool) -> None:
    conv = {"type": "BinaryConv", "pre_norm": True} if binary else None
    config.model.neck.update(in_channels=widths, out_channels=settings.fpn_channels, conv_cfg=conv)


def _set_faster_rcnn(
    config: Any, settings: DetectionSettings, widths: list[int], classes: int, binary: bool
) -> None:
    model, width = config.model, settings.fpn_channels
    _set_neck(config, settings, widths, binary)
    model.rpn_head.update(
        type="BinaryRPNHead" if binary else "RPNHead", in_channels=width, feat_channels=width
    )
    model.rpn_head.anchor_generator.scales = [settings.anchor_scale]
    model.roi_head.bbox_roi_extractor.out_channels = width
    model.roi_head.bbox_head.update(
        in_channels=width, fc_out_channels=settings.fc_channels, num_classes=classes
    )
    in_training, in_test = settings.proposals
    model.train_cfg.rpn.sampler.num = settings.rpn_samples
    model.train_cfg.rcnn.sampler.num = settings.roi_samples
    model.train_cfg.rpn_proposal.update(nms_pre=NMS_POOL * in_training, max_per_img=in_training)
    model.test_cfg.rpn.update(nms_pre=in_test, max_per_img=in_test)
    model.test_cfg.rcnn.update(_final(settings))


def _set_retinanet(
    config: Any, settings: DetectionSettings, widths: list[int], classes: int, binary: bool
) -> None:
    model, width = config.model, settings.fpn_channels
    _set_neck(config, settings, widths, binary)
    model.bbox_head.update(num_classes=classes, in_channels=width, feat_channels=width)
    # RetinaNet's smallest anchor of an octave has half the side of Faster R-CNN's single one.
    model.bbox_head.anchor_generator.octave_base_scale = settings.anchor_scale / 2
    model.test_cfg.update(_final(settings), nms_pre=settings.proposals[1])


def _set_ssd(config: Any, settings: DetectionSettings, widths: list[int], classes: int, binary: bool) -> None:
    del binary  # SSD has neither FPN nor RPN; its extra maps and predictors stay real.
    model = config.model
    maps = (*widths, settings.fpn_channels, settings.fpn_channels)
    model.neck.update(in_channels=tuple(widths), out_channels=maps)
    model.bbox_head.update(in_channels=maps, num_classes=classes)
    side = min(settings.test_scale)
    sizes = [share * side for share in SSD_SIZES]
    model.bbox_head.anchor_generator.update(min_sizes=sizes[:-1], max_sizes=sizes[1:])
    model.test_cfg.update(_final(settings), nms_pre=settings.proposals[1])


def _set_schedule(config: Any, settings: DetectionSettings) -> None:
    config.train_cfg.update(max_epochs=settings.epochs)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.custom_hooks[0].evaluate_every = settings.evaluate_every
    decay = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    config.optim_wrapper.optimizer = (
        {"type": "SGD", "momentum": settings.momentum, **decay}
        if settings.optimiser == "sgd"
        else {"type": "AdamW", "betas": (settings.momentum, 0.999), **decay}
    )
    clip = {"max_norm": settings.clip_norm, "norm_type": 2}
    config.optim_wrapper.clip_grad = clip if settings.clip_norm else None
    warm_up, steps = config.param_scheduler
    warm_up.end = settings.warmup_iterations
    steps.update(end=settings.epochs, milestones=list(settings.steps))
    config.param_scheduler = [warm_up, steps] if settings.warmup_iterations else [steps]


def _set_data(config: Any, settings: DetectionSettings, data: DetectionData) -> None:
    train_pipeline, test_pipeline = config.train_pipeline, config.test_pipeline
    keep_ratio = settings.detector != "ssd"
    train_pipeline[2].update(scales=list(settings.train_scales), keep_ratio=keep_ratio)
    train_pipeline[3].update(prob=settings.flip)
    test_pipeline[1].update(scale=settings.test_scale, keep_ratio=keep_ratio)
    parts = [_dataset(data, part, train_pipeline, settings, test=False) for part in data.train]
    joined = parts[0] if len(parts) == 1 else _concatenated(parts)
    if settings.repeat > 1:
        joined = {"type": "RepeatDataset", "times": settings.repeat, "dataset": joined}
    # Assigned, since a ConfigDict's update would keep keys of the file's own data set.
    config.train_dataloader.dataset = joined
    config.train_dataloader.update(batch_size=settings.batch_size, num_workers=settings.workers)
    config.test_dataloader.dataset = _dataset(data, data.test, test_pipeline, settings, test=True)
    config.test_dataloader.update(batch_size=settings.test_batch_size, num_workers=settings.workers)
    # Without an annotation file CocoMetric takes the ground truth from the data samples: any subset.
    config.test_evaluator = [
        {"type": "ExactCocoMetric", "metric": "bbox"},
        {"type": "VOCMetric", "metric": "mAP", "iou_thrs": 0.5, "eval_mode": "11points"},
    ]


def _concatenated(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "ConcatDataset", "ignore_keys": ["dataset_type"], "datasets": parts}


def _dataset(
    data: DetectionData, part: Part, pipeline: Any, settings: DetectionSettings, *, test: bool
) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if limit := settings.test_images if test else settings.train_images:
        chosen["indices"] = balanced_subset(part.annotations, limit, SUBSET_SEED)
        if test:
            require_boxes(part.annotations, chosen["indices"], "detection.test_images")
    return {
        **chosen,
        "type": "CountingCocoDataset",
        "data_prefix": {"img": f"{part.images.absolute()}/"},
        "ann_file": str(part.annotations.absolute()),
        "metainfo": {"classes": data.classes},
        "test_mode": test,
        # Serialised annotations save memory where processes share them, and cost a second where none do.
        "serialize_data": settings.workers > 0,
        "pipeline": pipeline,
    }
