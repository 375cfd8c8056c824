"""Settings of retraining a network for classification (method.md, section 6)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from search.binary import Estimator
from search.data import Augmentation
from search.errors import InputError
from search.image_folder import CropSettings
from search.network import Stem
from search.settings import (
    Batch,
    Cells,
    Channels,
    Epochs,
    FilePath,
    Images,
    LearningRate,
    Name,
    Settings,
    Weight,
    WeightDecay,
    Workers,
    merged,
)
from search.style import BlockSettings, Form

VARIANT = "--"
"""Between a network's name and that of a variant of ``retrain.<task>.variants``."""


class NetworkSettings(Settings):
    """Size and form of the network that is trained.

    Attributes:
        block: What of a block is not settled by the form.
        channels, cells: C and L of a genotype's network.
        handmade_channels: Stem width of a hand-made network (64 in the literature).
        auxiliary_weight: Weight of the auxiliary head's loss; 0 leaves the head out.
            The head learns hard labels, also beside a teacher.
        drop_path: Probability at the last epoch; it grows linearly from 0.
        checkpointing: Recompute cells in the backward pass to save memory.

    All but ``stem`` and ``handmade_channels`` is for a genotype's network; a hand-made one is as its paper has it.
    """

    form: Form
    block: BlockSettings
    estimator: Estimator
    stem: Stem
    channels: Channels
    cells: Cells
    handmade_channels: int = Field(ge=4, le=8192)
    auxiliary_weight: Weight
    drop_path: float = Field(ge=0, lt=1)
    checkpointing: bool


class StageSettings(Settings):
    """One stage of the training; a later stage starts from the earlier one's weights with a fresh optimiser.

    Attributes:
        epochs: Passes over the training images.
        binary_activations, binary_weights: What is binarised in this stage (a real-valued twin ignores both).
        optimiser: ``sgd`` (momentum 0.9, DARTS), ``adam`` or ``adamw``.
        learning_rate, final_learning_rate: Ends of the cosine.
        weight_decay: Not on parameters of one dimension where ``decay_vectors`` is false.
    """

    epochs: Epochs
    binary_activations: bool
    binary_weights: bool
    optimiser: Literal["sgd", "adam", "adamw"]
    learning_rate: LearningRate
    final_learning_rate: float = Field(ge=0, le=100)
    weight_decay: WeightDecay
    decay_vectors: bool


class LossSettings(Settings):
    """What is minimised besides the cross entropy.

    Attributes:
        kernel_weight: Weight of the kernel term of L_H (4.17). What it is of the gradient depends on the number of
            filters and images; the history has each term's share.
        class_mean_weight: lambda of the class-mean term of L_H (4.18), a mean over samples and features.
        class_mean_rate: How fast the running class means follow.
        reconstruction_weight: Weight of L_R (4.23).
        label_smoothing: Of the cross entropy.
        teacher: A trained teacher's weight file, or null: one of this suite's, or the state of a torchvision
            ResNet (``.pth``, or ``.safetensors`` with torchvision's names).
        teacher_weight: Share of the distillation loss; the hard labels have the rest.
        teacher_cache: ``none`` asks the teacher about every augmented image; ``fixed`` asks once about every image
            without augmentation and keeps the answers: cheaper, and another recipe, since the teacher does not
            see the student's crop (Beyer et al., CVPR 2022, find such a fixed teacher the weaker one).
        temperature: T of the distillation.
    """

    kernel_weight: Weight
    class_mean_weight: Weight
    class_mean_rate: float = Field(gt=0, le=1)
    reconstruction_weight: Weight
    label_smoothing: float = Field(ge=0, lt=1)
    teacher: FilePath | None
    teacher_weight: float = Field(ge=0, le=1)
    teacher_cache: Literal["none", "fixed"]
    temperature: float = Field(gt=0, le=10_000)

    @model_validator(mode="after")
    def _teacher_is_asked(self) -> LossSettings:
        if self.teacher_weight > 0 and self.teacher is None:
            raise ValueError("teacher_weight is set without a teacher: give teacher a weight file")
        if self.teacher_weight == 0 and self.teacher is not None:
            raise ValueError("the teacher's share teacher_weight is 0: set it, or teacher to null")
        return self


class RetrainSettings(Settings):
    """One classification task's recipe.

    Attributes:
        train_images, test_images: How many are used, class-balanced; 0 for all.
        augmentation: For images in memory (CIFAR-10).
        crop: For image folders (ImageNet).
        batch_size: Global batch, over all processes; ``accumulation`` steps make one update of it.
        clip: Largest norm of the gradient; 0 for no limit.
        ema: Decay of the averaged weights that are evaluated and exported; 0 for none. It averages batch norm's
            statistics as well, which fit averaged weights only after many times ``1 / (1 - ema)`` updates: in a
            shorter training, and always with the form ``released``, set ``recalibrate_images``.
        recalibrate_images: Training images from which batch norm's statistics are estimated anew after the last
            epoch, before the final evaluation and the export; 0 to leave them as training left them.
        variants: Changes to ``network`` by name, for runs of a network in several forms: the network ``NAME--VARIANT``
            of the chain is NAME with these changes, such as ``{w1a32: {block: {depthwise: w1a32}}}``.
        workers: Loading processes of an image folder; no influence on the numbers.
    """

    network: NetworkSettings
    variants: dict[Name, dict[str, Any]]
    stages: list[StageSettings] = Field(min_length=1, max_length=20)
    loss: LossSettings
    train_images: Images
    test_images: Images
    augmentation: Augmentation
    crop: CropSettings
    batch_size: Batch
    accumulation: Batch
    clip: Weight
    ema: float = Field(ge=0, lt=1)
    recalibrate_images: Images
    workers: Workers

    def knows(self, name: str) -> bool:
        """Whether the network's variant, if it has one, is among ``variants``."""
        return VARIANT not in name or name.partition(VARIANT)[2] in self.variants

    def of(self, name: str) -> RetrainSettings:
        """The recipe of a network of the chain: with its variant's changes in ``network``, and no variants.

        Raises:
            InputError: If the name asks for a variant that there is not.
        """
        variant = name.partition(VARIANT)[2]
        if not self.knows(name):
            raise InputError(
                f"{name} is no known variant", where="variants", allowed=", ".join(self.variants)
            )
        values = merged(self.network.model_dump(), self.variants[variant] if variant else {})
        return self.model_copy(update={"network": NetworkSettings.model_validate(values), "variants": {}})

    @model_validator(mode="after")
    def _variants_are_networks(self) -> RetrainSettings:
        for name, changes in self.variants.items():
            try:
                NetworkSettings.model_validate(merged(self.network.model_dump(), changes))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, ("variants", name, *first["loc"])))
                raise ValueError(f"{where} is {first['input']!r}: {first['msg'].lower()}") from None
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> RetrainSettings:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into {self.accumulation} steps of accumulation"
            )
        return self
