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
    """A second data set that is only tested on (cross-dataset evaluation)."""

    name: DataName = Field(description="name of the data set, for the record")
    root: FilePath = Field(description="the folder that holds it")
    layout: Layout = Field(description="how the folder is laid out")
    stand_in: bool = Field(description="whether the data set stands in for another")


class ReidSettings(Settings):
    """Person re-identification with Torchreid.

    The paper profile holds the strong-baseline recipe (Luo et al. 2019). Its centre loss (weight 5e-4) is
    left out: Torchreid has none. Torchreid's engines use one device and float32, whatever the section
    ``compute`` says of precision.
    """

    target: TargetSettings | None = Field(
        description="test on this data set instead; null: on the one trained on"
    )

    form: Form = Field(description="form of the genotype's operations")
    block: BlockSettings | None = Field(
        description="what of its blocks is not settled by the form; null with pretrained: the weights' own"
    )
    channels: Channels = Field(description="C of a genotype's network")
    cells: Cells = Field(description="cells of a genotype's network")
    handmade_channels: int = Field(
        ge=4, le=8192, description="stem width of a hand-made network; as published: 64 or 32"
    )
    pretrained: bool = Field(description="start from the weights retrained on ImageNet (or its stand-in)")
    last_stride: Literal[1, 2] = Field(description="stride of the last reduction; the strong baseline has 1")
    bnneck: bool = Field(description="batch norm between feature and identity classifier (BNNeck)")

    height: Pixels = Field(description="input height in pixels")
    width: Pixels = Field(description="input width in pixels")
    flip: bool = Field(description="horizontal flip with probability 1/2")
    pad: int = Field(
        ge=0, le=1000, description="pixels of padding before a random crop back to size; 0: no crop"
    )
    erasing: float = Field(ge=0, le=1, description="probability of random erasing")

    loss: Literal["softmax", "triplet"] = Field(description="identity softmax, or that plus the triplet loss")
    label_smoothing: float = Field(ge=0, lt=1, description="epsilon of the softmax loss")
    margin: float = Field(ge=0, le=1000, description="margin of the triplet loss")
    triplet_weight: float = Field(
        gt=0, le=1e6, description="weight of the triplet loss beside the softmax loss"
    )
    identities: int = Field(
        ge=2, le=100_000, description="identities in a batch; the batch size is identities x images"
    )
    images: int = Field(ge=2, le=1000, description="images of each identity in a batch")
    identity_sampler: bool = Field(description="draw identities x images; otherwise draw images uniformly")

    epochs: Epochs = Field(description="epochs of training")
    learning_rate: LearningRate = Field(description="Adam's learning rate after warm-up")
    weight_decay: WeightDecay = Field(description="Adam's L2 penalty")
    warmup_epochs: int = Field(ge=0, le=100_000, description="epochs of linear warm-up")
    warmup_factor: float = Field(
        gt=0, le=1, description="share of the learning rate that warm-up starts from"
    )
    steps: Annotated[list[Epochs], Field(max_length=100), Rising] = Field(
        description="epochs after which the learning rate is multiplied by gamma"
    )
    gamma: float = Field(gt=0, le=1, description="factor of a step")
    evaluate_every: int = Field(
        0,
        ge=0,
        le=100_000,
        description="test after every so many epochs too, for curves over time; 0: only at the end",
    )

    train_images: Images = Field(
        0, description="use so many training images, identities as even as can be; 0 for all"
    )
    test_images: Images = Field(
        0, description="use so many queries, chosen likewise, on the whole gallery; 0 for all"
    )

    test_batch: Batch = Field(description="images in a batch of evaluation")
    distance: Literal["cosine", "euclidean"] = Field(description="distance between features")
    rerank: bool = Field(description="k-reciprocal re-ranking (Zhong et al. 2017) before evaluation")
    pictures: int = Field(ge=0, le=8, description="queries whose ten nearest are drawn")
    workers: Workers = Field(description="processes that load pictures; changes no number but time")

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
