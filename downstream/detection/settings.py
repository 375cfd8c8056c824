"""Settings of the detection stage; values live in the profiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from search.settings import (
    Batch,
    Cells,
    Channels,
    Epochs,
    Images,
    LearningRate,
    Pixels,
    Rising,
    Settings,
    Weight,
    WeightDecay,
    Workers,
)
from search.style import BlockSettings, Form, forbid_two_blocks

Size = Annotated[tuple[Pixels, Pixels], Field(strict=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class DetectionSettings(Settings):
    """How a detector is built, trained and evaluated. The paper profile holds IDa-Det's recipe.

    Attributes:
        detector: Which detector is trained.
        form: Form of the backbone's operations.
        block: What of its blocks is not settled by the form; null with pretrained: the weights' own.
        channels: Width of a genotype backbone; hand-made networks have their own.
        handmade_channels: Stem width of a hand-made backbone (64 in the papers).
        cells: Cells of a genotype backbone.
        pretrained: Start from the weights of the ImageNet-style retraining.
        frozen_stages: Number of feature maps whose computation is not trained.
        norm_eval: Batch norms of the backbone use running statistics in training.
        train_scales: Width, height bounds in pixels; one is drawn for each training image.
        test_scale: Width, height bounds in pixels of a test image.
        fpn_channels: Channels of the FPN, the RPN and SSD's extra maps.
        binary_neck: FPN and RPN convolutions W1A1 for a 1-bit backbone; those of a real twin are always real.
        fc_channels: Width of Faster R-CNN's two fully connected layers.
        anchor_scale: Anchor side over the stride of its level (Faster R-CNN: 8).
        rpn_samples: Anchors an image in the RPN loss.
        roi_samples: Regions an image in the box head's loss.
        proposals: Regions kept by the RPN an image: in training, in test.
        optimiser: SGD with momentum, or AdamW.
        learning_rate: Learning rate after warm-up, at this batch size.
        momentum: Momentum of SGD (AdamW's first beta).
        weight_decay: Weight decay.
        clip_norm: Bound of the gradient's 2-norm; 0 for none.
        batch_size: Images a step.
        epochs: Passes over the (repeated) training set.
        repeat: How often an epoch goes over the training images (VOC 07+12: 3).
        warmup_iterations: Steps of linear warm-up from a thousandth of the rate.
        steps: Epochs after which the rate is divided by 10.
        evaluate_every: Test after every so many epochs too, for curves over time; 0: only at the end.
        flip: Probability of a horizontal flip in training.
        train_images: Use so many training images, classes as even as can be; 0 for all.
        test_images: Use so many test images, chosen likewise; 0 for all.
        test_batch_size: Images a step in evaluation; no influence on the numbers.
        score_threshold: Detections below this score are dropped.
        nms_iou: IoU above which the lower scoring of two detections is dropped.
        max_per_image: Detections kept an image.
        pictures: Test images shown with ground truth and detections.
        workers: Data loading processes; no influence on the numbers but their draws.
    """

    detector: Literal["faster_rcnn", "retinanet", "ssd"]
    form: Form
    block: BlockSettings | None
    channels: Channels
    handmade_channels: int = Field(ge=4, le=8192)
    cells: Cells
    pretrained: bool
    frozen_stages: int = Field(ge=0, le=4)
    norm_eval: bool
    train_scales: Annotated[tuple[Size, ...], Field(strict=False, min_length=1, max_length=100)]
    test_scale: Size
    fpn_channels: int = Field(gt=0, le=8192)
    binary_neck: bool
    fc_channels: int = Field(gt=0, le=100000)
    anchor_scale: float = Field(gt=0, le=1000)
    rpn_samples: Count
    roi_samples: Count
    proposals: Annotated[tuple[Count, Count], Field(strict=False)]
    optimiser: Literal["sgd", "adamw"]
    learning_rate: LearningRate
    momentum: float = Field(ge=0, lt=1)
    weight_decay: WeightDecay
    clip_norm: Weight
    batch_size: Batch
    epochs: Epochs
    repeat: int = Field(gt=0, le=1000)
    warmup_iterations: int = Field(ge=0, le=10**6)
    steps: Annotated[tuple[Epochs, ...], Field(strict=False, max_length=100), Rising]
    evaluate_every: int = Field(ge=0, le=100000)
    flip: float = Field(ge=0, le=1)
    train_images: Images
    test_images: Images
    test_batch_size: Batch
    score_threshold: float = Field(ge=0, lt=1)
    nms_iou: float = Field(gt=0, lt=1)
    max_per_image: Count
    pictures: int = Field(ge=0, le=1000)
    workers: Workers

    @model_validator(mode="after")
    def _blocks_are_said_once(self) -> DetectionSettings:
        forbid_two_blocks(self.pretrained, self.block)
        return self
