"""Settings of the detection stage; values live in the profiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.settings import Settings

Size = Annotated[tuple[int, int], Field(strict=False)]


class DetectionSettings(Settings):
    """How a detector is built, trained and evaluated. The paper profile holds IDa-Det's recipe."""

    detector: Literal["faster_rcnn", "retinanet", "ssd"] = Field(description="Which detector is trained")
    form: Literal["paper", "released", "darts"] = Field(description="Form of the backbone's operations")
    channels: int = Field(gt=0, description="Width of a genotype backbone; hand-made networks have their own")
    handmade_channels: int = Field(gt=0, description="Stem width of a hand-made backbone (64 in the papers)")
    cells: int = Field(gt=0, description="Cells of a genotype backbone")
    pretrained: bool = Field(description="Start from the weights of the ImageNet-style retraining")
    frozen_stages: int = Field(
        ge=0, le=4, description="Number of feature maps whose computation is not trained"
    )
    norm_eval: bool = Field(description="Batch norms of the backbone use running statistics in training")
    train_scales: Annotated[tuple[Size, ...], Field(strict=False, min_length=1)] = Field(
        description="Width, height bounds in pixels; one is drawn for each training image"
    )
    test_scale: Size = Field(description="Width, height bounds in pixels of a test image")
    fpn_channels: int = Field(gt=0, description="Channels of the FPN, the RPN and SSD's extra maps")
    binary_neck: bool = Field(
        description="FPN and RPN convolutions W1A1 for a 1-bit backbone; those of a real twin are always real"
    )
    fc_channels: int = Field(gt=0, description="Width of Faster R-CNN's two fully connected layers")
    anchor_scale: float = Field(
        gt=0, description="Anchor side over the stride of its level (Faster R-CNN: 8)"
    )
    rpn_samples: int = Field(gt=0, description="Anchors an image in the RPN loss")
    roi_samples: int = Field(gt=0, description="Regions an image in the box head's loss")
    proposals: Size = Field(description="Regions kept by the RPN an image: in training, in test")
    optimiser: Literal["sgd", "adamw"] = Field(description="SGD with momentum, or AdamW")
    learning_rate: float = Field(gt=0, description="Learning rate after warm-up, at this batch size")
    momentum: float = Field(ge=0, lt=1, description="Momentum of SGD (AdamW's first beta)")
    weight_decay: float = Field(ge=0, description="Weight decay")
    clip_norm: float = Field(ge=0, description="Bound of the gradient's 2-norm; 0 for none")
    batch_size: int = Field(gt=0, description="Images a step")
    epochs: int = Field(gt=0, description="Passes over the (repeated) training set")
    repeat: int = Field(gt=0, description="How often an epoch goes over the training images (VOC 07+12: 3)")
    warmup_iterations: int = Field(ge=0, description="Steps of linear warm-up from a thousandth of the rate")
    steps: Annotated[tuple[int, ...], Field(strict=False)] = Field(
        description="Epochs after which the rate is divided by 10"
    )
    evaluate_every: int = Field(
        0, ge=0, description="Test after every so many epochs too, for curves over time; 0: only at the end"
    )
    flip: float = Field(ge=0, le=1, description="Probability of a horizontal flip in training")
    train_images: int = Field(ge=0, description="Use the first so many training images; 0 for all")
    test_images: int = Field(ge=0, description="Use the first so many test images; 0 for all")
    test_batch_size: int = Field(gt=0, description="Images a step in evaluation; no influence on the numbers")
    score_threshold: float = Field(ge=0, lt=1, description="Detections below this score are dropped")
    nms_iou: float = Field(
        gt=0, lt=1, description="IoU above which the lower scoring of two detections is dropped"
    )
    max_per_image: int = Field(gt=0, description="Detections kept an image")
    pictures: int = Field(ge=0, description="Test images shown with ground truth and detections")
    workers: int = Field(
        ge=0, description="Data loading processes; no influence on the numbers but their draws"
    )
