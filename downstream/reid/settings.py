"""Settings of the re-identification stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from search.settings import (
    Batch,
    Cells,
    Channels,
    DataName,
    Epochs,
    FilePath,
    Images,
    LearningRate,
    Pixels,
    Rising,
    Settings,
    WeightDecay,
    Workers,
)
from search.style import BlockSettings, Form, forbid_two_blocks

Layout = Literal["folder", "market1501", "cuhk03", "msmt17"]


class TargetSettings(Settings):
    """A second data set that is only tested on (cross-dataset evaluation).

    Attributes:
        name: Name of the data set, for the record.
        root: The folder that holds it.
        layout: How the folder is laid out.
        stand_in: Whether the data set stands in for another.
    """

    name: DataName
    root: FilePath
    layout: Layout
    stand_in: bool


class ReidSettings(Settings):
    """Person re-identification with Torchreid.

    The paper profile holds the strong-baseline recipe (Luo et al. 2019). Its centre loss (weight 5e-4) is
    left out: Torchreid has none. Torchreid's engines use one device and float32, whatever the section
    ``compute`` says of precision.

    Attributes:
        target: Test on this data set instead; null: on the one trained on.
        form: Form of the genotype's operations.
        block: What of its blocks is not settled by the form; null with pretrained: the weights' own.
        channels: C of a genotype's network.
        cells: Cells of a genotype's network.
        handmade_channels: Stem width of a hand-made network; as published: 64 or 32.
        pretrained: Start from the weights retrained on ImageNet (or its stand-in).
        last_stride: Stride of the last reduction; the strong baseline has 1.
        bnneck: Batch norm between feature and identity classifier (BNNeck).
        height: Input height in pixels.
        width: Input width in pixels.
        flip: Horizontal flip with probability 1/2.
        pad: Pixels of padding before a random crop back to size; 0: no crop.
        erasing: Probability of random erasing.
        loss: Identity softmax, or that plus the triplet loss.
        label_smoothing: Epsilon of the softmax loss.
        margin: Margin of the triplet loss.
        triplet_weight: Weight of the triplet loss beside the softmax loss.
        identities: Identities in a batch; the batch size is identities x images.
        images: Images of each identity in a batch.
        identity_sampler: Draw identities x images; otherwise draw images uniformly.
        epochs: Epochs of training.
        learning_rate: Adam's learning rate after warm-up.
        weight_decay: Adam's L2 penalty.
        warmup_epochs: Epochs of linear warm-up.
        warmup_factor: Share of the learning rate that warm-up starts from.
        steps: Epochs after which the learning rate is multiplied by gamma.
        gamma: Factor of a step.
        evaluate_every: Test after every so many epochs too, for curves over time; 0: only at the end.
        train_images: Use so many training images, identities as even as can be; 0 for all.
        test_images: Use so many queries, chosen likewise, on the whole gallery; 0 for all.
        test_batch: Images in a batch of evaluation.
        distance: Distance between features.
        rerank: K-reciprocal re-ranking (Zhong et al. 2017) before evaluation.
        pictures: Queries whose ten nearest are drawn.
        workers: Processes that load pictures; changes no number but time.
    """

    target: TargetSettings | None

    form: Form
    block: BlockSettings | None
    channels: Channels
    cells: Cells
    handmade_channels: int = Field(ge=4, le=8192)
    pretrained: bool
    last_stride: Literal[1, 2]
    bnneck: bool

    height: Pixels
    width: Pixels
    flip: bool
    pad: int = Field(ge=0, le=1000)
    erasing: float = Field(ge=0, le=1)

    loss: Literal["softmax", "triplet"]
    label_smoothing: float = Field(ge=0, lt=1)
    margin: float = Field(ge=0, le=1000)
    triplet_weight: float = Field(gt=0, le=1000000.0)
    identities: int = Field(ge=2, le=100000)
    images: int = Field(ge=2, le=1000)
    identity_sampler: bool

    epochs: Epochs
    learning_rate: LearningRate
    weight_decay: WeightDecay
    warmup_epochs: int = Field(ge=0, le=100000)
    warmup_factor: float = Field(gt=0, le=1)
    steps: Annotated[list[Epochs], Field(max_length=100), Rising]
    gamma: float = Field(gt=0, le=1)
    evaluate_every: int = Field(ge=0, le=100000)

    train_images: Images = 0
    test_images: Images = 0

    test_batch: Batch
    distance: Literal["cosine", "euclidean"]
    rerank: bool
    pictures: int = Field(ge=0, le=8)
    workers: Workers

    @property
    def batch(self) -> int:
        """Images in a training batch."""
        return self.identities * self.images

    @model_validator(mode="after")
    def _consistent(self) -> ReidSettings:
        forbid_two_blocks(self.pretrained, self.block)
        if self.loss == "triplet" and not self.identity_sampler:
            raise ValueError("the triplet loss needs identity_sampler: true")
        return self
