"""DCP-NAS (method.md, section 4; Li et al., IJCV 2023, Algorithm 10): tangents from Parent to Child.

Line by line, with the place where each is written down:

    a round: 1. Parent search, cross entropy (4.21)          _parent_alpha_step, _parent_loss
                its tangent d f^P / d alpha (4.29)           _close_parent_phase, search.tangent.tangent
             2. alphahat <- alpha                            _inherit
             3. Child search, L = -G + lambda D + mu L_R     _child_alpha_step, _child_loss
                gradient in alphahat (4.33)                  search.tangent.child_gradient
                H_G (4.36-4.41)                              search.curvature
                weights, straight-through (4.34, 4.35)       search.binary.estimate
             4. alpha <- alphahat                            _inherit
    decoupled optimisation of both (4.42-4.53)               search.decoupled
"""

from __future__ import annotations

from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from search.binary import quant_convs, reconstruction_error
from search.curvature import Curvature, straight_through_tangents
from search.decoupled import Backtracking, operation_norms, ranking
from search.processes import mean_over_processes
from search.settings import Epochs
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.differentiable import (
    VALIDATION_ORDER,
    AlphaSettings,
    Batch,
    Learner,
    alpha_table,
    batch_statistics,
)
from search.tangent import Distance, child_gradient, child_objective, parent_objective, tangent


class DcpNasSettings(AlphaSettings):
    """Settings of DCP-NAS; [paper] is printed, [derived] and [choice] are readings and defaults of ours.

    Attributes:
        rounds: How often Parent and Child take turns [choice].
        parent_epochs, child_epochs: Epochs of each in a round [choice].
        tangent: Whether D enters the Child's loss; without it the method is CP-NAS's objective by gradient.
        tangent_weight: lambda of (4.32), 5e-3 [paper, its exponent's sign derived].
        tangent_point: ``end`` takes the Parent's tangent at the end of its turn, the mean over one pass over
            the validation batches; ``path`` is the mean of the gradients of the turn's alpha steps [choice].
        distance: D: ``f_norm``, the squared Frobenius norm (4.31) [derived]; ``l1``, ``cosine`` (Table 4.4).
        curvature: H_G of (4.33): ``ggn`` [paper], ``exact`` or ``outer``.
        reconstruction_weight: mu of (4.32), 0.2 [paper]; 0 leaves L_R out.
        reconstruction_reduction: ``sum`` of L_R over all 1-bit convolutions (4.23) [paper], or ``mean``, since
            the sum's gradient can outweigh that of G.
        decoupled: Whether alphas are backtracked (4.42 to 4.53).
        eta: Step of the backtracking [choice]; a step lets a selected alpha grow by the factor 1 + eta psi.
        eta_psi: Learning rate of psi (4.51) [choice].
        tau: Operations whose rank by weight norm, in [0, 1], is above it are led back [choice].
        psi_start: First value of psi on every edge [choice].
        alpha_optimiser: ``descent`` is (4.42) [paper]; ``adam`` is DARTS's.
    """

    alpha_optimiser: Literal["adam", "descent"] = "descent"
    rounds: Epochs
    parent_epochs: Epochs
    child_epochs: Epochs
    tangent: bool = True
    tangent_weight: float = Field(default=5e-3, ge=0, le=1e6)
    tangent_point: Literal["end", "path"] = "end"
    distance: Distance = "f_norm"
    curvature: Curvature = "ggn"
    reconstruction_weight: float = Field(default=0.2, ge=0, le=1e6)
    reconstruction_reduction: Literal["sum", "mean"] = "sum"
    decoupled: bool = True
    eta: float = Field(default=1e-2, ge=0, le=1e6)
    eta_psi: float = Field(default=1.0, ge=0, le=1e6)
    tau: float = Field(default=0.5, ge=0, le=1)
    psi_start: float = Field(default=0.1, ge=0, le=1e6)


class DcpNas(Strategy):
    """Parent and Child supernets in turns, joined by alphas and the Parent's tangent; a step is an epoch.

    Each keeps its weights, its optimisers and its psi from round to round; only the alphas are handed over.
    """

    name: ClassVar[str] = "dcp_nas"

    def __init__(self, context: Context, settings: DcpNasSettings) -> None:
        super().__init__(context)
        self.settings = settings
        self.parent = Learner(context, settings, binary=False)
        self.child = Learner(context, settings)
        self.learners = {"parent": self.parent, "child": self.child}
        alpha = self.child.architecture.alpha
        self.backtracking = {
            name: Backtracking(
                alpha.shape, settings.eta, settings.eta_psi, settings.tau, settings.psi_start, alpha.device
            )
            for name in self.learners
        }
        self.tangent = torch.zeros_like(alpha, requires_grad=False)
        self.path = torch.zeros_like(alpha, requires_grad=False)
        self.path_length = 0
        self.validation_accuracy = 0.0
        self._measured: list[tuple[float, float]] = []

    @property
    def total_steps(self) -> int:
        """Rounds times the epochs of both."""
        return self.settings.rounds * (self.settings.parent_epochs + self.settings.child_epochs)

    def step(self, index: int) -> list[dict[str, Any]]:
        """One epoch of the Parent or the Child; the last one of a turn hands the alphas over."""
        turn, epoch = divmod(index, self.settings.parent_epochs + self.settings.child_epochs)
        is_parent = epoch < self.settings.parent_epochs
        phase = "parent" if is_parent else "child"
        learner = self.learners[phase]
        self._measured = []
        loss = learner.train_epoch(
            index,
            index / self.total_steps,
            self._parent_loss if is_parent else self._child_loss,
            self._parent_alpha_step if is_parent else self._child_alpha_step,
        )
        accuracy = learner.accuracy()
        if epoch == self.settings.parent_epochs - 1:
            self._close_parent_phase()
        elif not is_parent:
            self.validation_accuracy = accuracy
            if epoch == self.settings.parent_epochs + self.settings.child_epochs - 1:
                self._inherit("child", "parent")
        return [{"step": index, "round": turn, **self._row(phase, loss, accuracy)}]

    # ---- the Parent's turn

    def _parent_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy of the Parent (4.21)."""
        loss = F.cross_entropy(self.parent.predict(batch[0]), batch[1])
        return loss, loss.detach()

    def _parent_tangent(self, batch: Batch) -> Tensor:
        """d f^P / d alpha (4.29) on one batch of all processes, (2, 14, 8)."""
        value = parent_objective(self.parent.predict(batch[0]), batch[1])
        return mean_over_processes(tangent(value, self.parent.architecture.alpha))

    def _parent_alpha_step(self, train: Batch, validation: Batch) -> None:
        """Descend on the Parent's cross entropy, -f^P, on a validation batch."""
        direction = self._parent_tangent(validation)
        if self.settings.tangent_point == "path":
            self.path += direction
            self.path_length += 1
        self._update("parent", -direction)

    def _close_parent_phase(self) -> None:
        """Fix the Parent's tangent for the Child's turn and hand alpha to the Child."""
        if self.settings.tangent and self.settings.tangent_point == "path":
            self.tangent = self.path / self.path_length
            self.path, self.path_length = torch.zeros_like(self.path), 0
        elif self.settings.tangent:
            self.tangent = self._mean_tangent()
        self._inherit("parent", "child")

    def _mean_tangent(self) -> Tensor:
        """d f^P / d alpha (4.29), mean over the validation batches, at the Parent's present state."""
        batches = self.context.batches(self.context.validation, training=True, seed_offset=VALIDATION_ORDER)
        total = torch.zeros_like(self.tangent)
        with batch_statistics(self.parent.network), self.context.float32():
            for x, y in batches.epoch(0):
                total += self._parent_tangent((x, y))
                self.context.budget.images_seen += len(y) * self.context.fabric.world_size
        return total / len(batches)

    # ---- the Child's turn

    @torch.no_grad()
    def _targets(self, x: Tensor) -> Tensor:
        """The Parent's output distribution p, (N, classes), its stem too normalised by the batch [choice]."""
        with batch_statistics(self.parent.network):
            logits = self.parent.predict(x)
        self.context.budget.images_evaluated += len(x) * self.context.fabric.world_size
        return torch.softmax(logits, dim=-1)

    def _child_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-G + mu L_R in the Child's weights (4.32), and -G; D is a function of alphahat only [derived]."""
        divergence = -child_objective(self.child.predict(batch[0]), self._targets(batch[0]))
        loss = divergence
        if self.settings.reconstruction_weight > 0:
            loss = loss + self.settings.reconstruction_weight * self.reconstruction()
        return loss, divergence.detach()

    def reconstruction(self) -> Tensor:
        """L_R of the Child (4.23), summed over its 1-bit convolutions or, by the settings, their mean."""
        error = reconstruction_error(self.child.network)
        if self.settings.reconstruction_reduction == "sum":
            return error
        precisions = [conv.weight_quantiser.precision for _, conv in quant_convs(self.child.network)]
        return error / max(1, precisions.count(1))

    def _child_alpha_step(self, train: Batch, validation: Batch) -> None:
        """Descend on -G + lambda D in alphahat (4.33) on a validation batch."""
        x, targets = validation[0], self._targets(validation[0])
        settings = self.settings
        with straight_through_tangents(self.child.network):
            found = child_gradient(
                lambda alpha: self.child.predict(x, alpha),
                lambda logits: child_objective(logits, targets),
                self.child.architecture.alpha,
                self.tangent if settings.tangent else None,
                settings.tangent_weight,
                settings.distance,
                settings.curvature,
                mean_over_processes,
            )
        if found.distance is not None and found.cosine is not None:
            self._measured.append((found.distance, found.cosine))
        self._update("child", found.gradient)

    # ---- both

    def _update(self, phase: str, gradient: Tensor) -> None:
        """The step of the alphas, with backtracking (4.42 to 4.53) where it is on."""
        learner = self.learners[phase]
        alpha = learner.architecture.alpha

        def descend() -> None:
            learner.alpha_update([gradient])

        if self.settings.decoupled:
            ranks = ranking(operation_norms(learner.network)).to(alpha.device)
            self.backtracking[phase].step(alpha, gradient, ranks, descend)
        else:
            descend()

    def _inherit(self, giver: str, taker: str) -> None:
        """Copy the alphas of one learner to the other, whose backtracking starts from there."""
        with torch.no_grad():
            self.learners[taker].architecture.alpha.copy_(self.learners[giver].architecture.alpha)
        self.backtracking[taker].forget()

    def _row(self, phase: str, loss: float, accuracy: float) -> dict[str, Any]:
        distances, cosines = zip(*self._measured, strict=True) if self._measured else ((), ())
        is_parent = phase == "parent"
        psi = self.backtracking[phase].psi
        return {
            "phase": phase,
            "epoch": self.context.budget.epochs,
            "loss_parent": loss if is_parent else None,
            "loss_child": None if is_parent else loss,
            "reconstruction": None if is_parent else float(self.reconstruction().detach()),
            "accuracy_parent": accuracy if is_parent else None,
            "accuracy_child": None if is_parent else accuracy,
            "images_seen": self.context.budget.images_seen,
            **self.learners[phase].diagnose(),
            "distance": fmean(distances) if distances else None,
            "tangent_cosine": fmean(cosines) if cosines else None,
            "psi_mean": float(psi.mean()) if self.settings.decoupled else None,
            "psi_max": float(psi.max()) if self.settings.decoupled else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Both learners, psi of both, the Parent's tangent and the last accuracy."""
        return {
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "backtracking": {name: entry.state_dict() for name, entry in self.backtracking.items()},
            "tangent": self.tangent,
            "path": self.path,
            "path_length": self.path_length,
            "validation_accuracy": self.validation_accuracy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
            self.backtracking[name].load_state_dict(state["backtracking"][name])
        self.tangent, self.path = state["tangent"].to(self.tangent), state["path"].to(self.path)
        self.path_length, self.validation_accuracy = state["path_length"], state["validation_accuracy"]

    def result(self) -> SearchResult:
        """The genotype of the Child's alphas [choice]; the accuracy is the mixed Child's after its last epoch."""
        tables = {"alphas.csv": alpha_table(self.child.architecture)}
        return SearchResult(self.child.genotype(self.name), self.validation_accuracy, tables)
