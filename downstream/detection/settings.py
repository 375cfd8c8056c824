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
    """How a detector is built, trained and evaluated. The paper profile holds IDa-Det's recipe."""

    detector: Literal["faster_rcnn", "retinanet", "ssd"] = Field(description="Which detector is trained")
    form: Form = Field(description="Form of the backbone's operations")
    block: BlockSettings | None = Field(
        description="What of its blocks is not settled by the form; null with pretrained: the weights' own"
    )
    channels: Channels = Field(description="Width of a genotype backbone; hand-made networks have their own")
    handmade_channels: int = Field(
        ge=4, le=8192, description="Stem width of a hand-made backbone (64 in the papers)"
    )
    cells: Cells = Field(description="Cells of a genotype backbone")
    pretrained: bool = Field(description="Start from the weights of the ImageNet-style retraining")
    frozen_stages: int = Field(
        ge=0, le=4, description="Number of feature maps whose computation is not trained"
    )
    norm_eval: bool = Field(description="Batch norms of the backbone use running statistics in training")
    train_scales: Annotated[tuple[Size, ...], Field(strict=False, min_length=1, max_length=100)] = Field(
        description="Width, height bounds in pixels; one is drawn for each training image"
    )
    test_scale: Size = Field(description="Width, height bounds in pixels of a test image")
    fpn_channels: int = Field(gt=0, le=8192, description="Channels of the FPN, the RPN and SSD's extra maps")
    binary_neck: bool = Field(
        description="FPN and RPN convolutions W1A1 for a 1-bit backbone; those of a real twin are always real"
    )
    fc_channels: int = Field(
        gt=0, le=100_000, description="Width of Faster R-CNN's two fully connected layers"
    )
    anchor_scale: float = Field(
        gt=0, le=1000, description="Anchor side over the stride of its level (Faster R-CNN: 8)"
    )
    rpn_samples: Count = Field(description="Anchors an image in the RPN loss")
    roi_samples: Count = Field(description="Regions an image in the box head's loss")
    proposals: Annotated[tuple[Count, Count], Field(strict=False)] = Field(
        description="Regions kept by the RPN an image: in training, in test"
    )
    optimiser: Literal["sgd", "adamw"] = Field(description="SGD with momentum, or AdamW")
    learning_rate: LearningRate = Field(description="Learning rate after warm-up, at this batch size")
    momentum: float = Field(ge=0, lt=1, description="Momentum of SGD (AdamW's first beta)")
    weight_decay: WeightDecay = Field(description="Weight decay")
    clip_norm: Weight = Field(description="Bound of the gradient's 2-norm; 0 for none")
    batch_size: Batch = Field(description="Images a step")
    epochs: Epochs = Field(description="Passes over the (repeated) training set")
    repeat: int = Field(
        gt=0, le=1000, description="How often an epoch goes over the training images (VOC 07+12: 3)"
    )
    warmup_iterations: int = Field(
        ge=0, le=10**6, description="Steps of linear warm-up from a thousandth of the rate"
    )
    steps: Annotated[tuple[Epochs, ...], Field(strict=False, max_length=100), Rising] = Field(
        description="Epochs after which the rate is divided by 10"
    )
    evaluate_every: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Test after every so many epochs too, for curves over time; 0: only at the end",
    )
    flip: float = Field(ge=0, le=1, description="Probability of a horizontal flip in training")
    train_images: Images = Field(
        description="Use so many training images, classes as even as can be; 0 for all"
    )
    test_images: Images = Field(description="Use so many test images, chosen likewise; 0 for all")
    test_batch_size: Batch = Field(description="Images a step in evaluation; no influence on the numbers")
    score_threshold: float = Field(ge=0, lt=1, description="Detections below this score are dropped")
    nms_iou: float = Field(
        gt=0, lt=1, description="IoU above which the lower scoring of two detections is dropped"
    )
    max_per_image: Count = Field(description="Detections kept an image")
    pictures: int = Field(ge=0, le=1000, description="Test images shown with ground truth and detections")
    workers: Workers = Field(
        description="Data loading processes; no influence on the numbers but their draws"
    )

    @model_validator(mode="after")
    def _blocks_are_said_once(self) -> DetectionSettings:
        forbid_two_blocks(self.pretrained, self.block)
        return self
