"""DARTS (Liu, Simonyan and Yang, ICLR 2019), first and second order, on 1-bit or real operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from search import exact
from search.processes import mean_over_processes
from search.settings import Epochs
from search.strategies.base import Context
from search.strategies.differentiable import AlphaSettings, Batch, DifferentiableSearch, Learner

Weights = Mapping[str, Tensor]


class DartsSettings(AlphaSettings):
    """Settings of DARTS.

    Attributes:
        epochs: Epochs over the train half.
        order: 1 takes the weights as they are; 2 takes them after one virtual step (DARTS, eq. 6).
        second_order: How order 2 differentiates through that step: ``finite_difference`` (DARTS, eq. 8) or
            ``exact``, by double backward. Where a 1-bit operation's gradient estimator is piecewise constant
            (``ste``, ``identity``) ``exact`` takes its second derivative as 0.
        difference_radius: Length of the finite difference's step in weight space (DARTS: 0.01).
    """

    epochs: Epochs
    order: Literal[1, 2]
    second_order: Literal["finite_difference", "exact"] = "finite_difference"
    difference_radius: float = Field(default=0.01, gt=0, le=100)


class Darts(DifferentiableSearch):
    """Alternate alpha steps on the validation half and weight steps on the train half.

    Images are counted once a step, alpha steps included; the further passes of the second order over the same
    two batches show in the seconds, not in ``images_seen``.
    """

    name: ClassVar[str] = "darts"

    def __init__(self, context: Context, settings: DartsSettings) -> None:
        super().__init__(context, Learner(context, settings), settings.epochs, warm_up=0)
        self.settings = settings

    def alpha_step(self, train: Batch, validation: Batch) -> None:
        """First order on the validation batch alone, second order through a virtual weight step."""
        self.learner.alpha_update([self.alpha_gradient(train, validation)])

    def alpha_gradient(self, train: Batch, validation: Batch) -> Tensor:
        """The gradient of the validation loss in alpha, alpha's shape, of the order in the settings."""
        if self.settings.order == 2:
            return self._unrolled(train, validation)
        return torch.autograd.grad(self.cross_entropy(validation), self.learner.architecture.alpha)[0]

    def _loss(self, weights: Weights, batch: Batch) -> Tensor:
        """Mean cross entropy on a batch at other weights, always in the weights' own precision."""
        choice = self.learner.architecture.mixture()
        logits = functional_call(self.learner.network, dict(weights), (batch[0], choice))
        return exact.cross_entropy(logits, batch[1])

    def _unrolled(self, train: Batch, validation: Batch) -> Tensor:
        """d/dalpha of L_val(w', alpha) at w' = w - xi d L_train(w, alpha) / dw (DARTS, eq. 6 and 7).

        The virtual step is that of the weights' optimiser: xi is its present learning rate, and its weight
        decay and, for ``sgd``, its momentum enter, as in the authors' code.
        """
        exact = self.settings.second_order == "exact"
        alpha = self.learner.architecture.alpha
        weights = dict(self.learner.network.named_parameters())
        gradients = torch.autograd.grad(
            self._loss(weights, train), list(weights.values()), create_graph=exact
        )
        gradients = tuple(mean_over_processes(gradient) for gradient in gradients)
        xi, virtual = self._virtual_step(weights, gradients)
        if exact:
            return torch.autograd.grad(self._loss(virtual, validation), alpha)[0]
        virtual = {name: value.detach().requires_grad_() for name, value in virtual.items()}
        loss = self._loss(virtual, validation)
        first, *direction = torch.autograd.grad(loss, [alpha, *virtual.values()])
        return first - xi * self._mixed_derivative(weights, direction, train)

    def _virtual_step(self, weights: Weights, gradients: tuple[Tensor, ...]) -> tuple[float, Weights]:
        optimiser = self.learner.weight_optimiser
        group = optimiser.param_groups[0]
        xi, decay, momentum = group["lr"], group["weight_decay"], group.get("momentum", 0.0)
        virtual = {}
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            step = gradient + decay * weight.detach()
            buffer = optimiser.state[weight].get("momentum_buffer") if weight in optimiser.state else None
            virtual[name] = weight.detach() - xi * (step if buffer is None else step + momentum * buffer)
        return xi, virtual

    def _mixed_derivative(self, weights: Weights, direction: list[Tensor], train: Batch) -> Tensor:
        """d^2 L_train / (dalpha dw) times ``direction`` v: central differences of step R / ||v||, eq. 8."""
        direction = [mean_over_processes(part) for part in direction]
        norm = torch.stack([part.square().sum() for part in direction]).sum().sqrt()
        epsilon = self.settings.difference_radius / norm
        sides = []
        for side in (epsilon, -epsilon):
            moved = {
                name: weight.detach() + side * part
                for (name, weight), part in zip(weights.items(), direction, strict=True)
            }
            sides.append(torch.autograd.grad(self._loss(moved, train), self.learner.architecture.alpha)[0])
        return (sides[0] - sides[1]) / (2 * epsilon)
