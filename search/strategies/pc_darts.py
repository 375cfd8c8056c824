"""PC-DARTS (Xu et al., ICLR 2020): operations on a part of the channels, and edge normalisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator

from search.settings import Epochs
from search.strategies.base import Context
from search.strategies.differentiable import AlphaSettings, Batch, DifferentiableSearch, Learner


class PcDartsSettings(AlphaSettings):
    """Settings of PC-DARTS.

    Attributes:
        epochs: Epochs over the train half.
        warm_up: The first of them, in which the alphas rest (PC-DARTS: 15 of 50).
        partial: K: operations see 1 / K of the channels (PC-DARTS: 4).
    """

    epochs: Epochs
    warm_up: int = Field(ge=0, le=100_000)
    partial: int = Field(default=4, ge=1, le=8192)

    @model_validator(mode="after")
    def _alphas_move(self) -> PcDartsSettings:
        if self.warm_up >= self.epochs:
            raise ValueError(
                f"warm_up {self.warm_up} leaves none of the {self.epochs} epochs to the alphas: they would never move"
            )
        return self


class PcDarts(DifferentiableSearch):
    """First-order DARTS on partial channels; a node weighs its incoming edges by a softmax of their own."""

    name: ClassVar[str] = "pc_darts"

    def __init__(self, context: Context, settings: PcDartsSettings) -> None:
        learner = Learner(context, settings, partial=settings.partial, edges=True)
        super().__init__(context, learner, settings.epochs, settings.warm_up)
        self.settings = settings

    def alpha_step(self, train: Batch, validation: Batch) -> None:
        """One step of alphas and edge parameters on the validation batch."""
        parameters = list(self.learner.architecture.parameters())
        self.learner.alpha_update(torch.autograd.grad(self.cross_entropy(validation), parameters))
