"""DCP-NAS (method.md, section 4; Li et al., IJCV 2023, Algorithm 10): tangents from Parent to Child.

Line by line, with the place where each is written down:

    a round: 1. Parent search, cross entropy (4.21)          _parent_alpha_step, _parent_loss
                its tangent d f^P / d alpha (4.29)           _close_parent_phase, search.tangent.tangent
             2. alphahat <- alpha                            _inherit
             3. Child search, L = -G + lambda D + mu L_R     _child_alpha_step, _child_loss
                gradient in alphahat (4.33)                  search.tangent.child_gradient
                H_G (4.36-4.41)                              search.curvature
                mu L_R in the weights (4.23, 4.32)           _pull_together
                weights, straight-through (4.34, 4.35)       search.binary.estimate
             4. alpha <- alphahat                            _inherit
    decoupled optimisation of both (4.42-4.53)               search.decoupled
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from search import exact
from search.binary import quant_convs, reconstruction_error
from search.curvature import Curvature, agreement, straight_through_tangents
from search.decoupled import Backtracking, operation_norms, ranking
from search.processes import mean_over_processes
from search.settings import Epochs
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.diagnostics import mean_share
from search.strategies.differentiable import (
    VALIDATION_ORDER,
    AlphaSettings,
    Batch,
    Learner,
    alpha_table,
    batch_statistics,
)
from search.tangent import (
    Distance,
    Scaling,
    child_gradient,
    child_objective,
    distance_gradient,
    parent_objective,
    tangent,
    term_factor,
)


class DcpNasSettings(AlphaSettings):
    """Settings of DCP-NAS; [paper] is printed, [derived] and [choice] are readings and defaults of ours.

    Attributes:
        rounds: How often Parent and Child take turns [choice].
        parent_epochs, child_epochs: Epochs of each in a round [choice].
        tangent: Whether D enters the Child's loss; without it the method is CP-NAS's objective by gradient.
        tangent_weight, tangent_scaling: Size of the term lambda D of (4.32) in alphahat. ``relative``: the norm of
            its gradient is this share of |dG/dalphahat|, 0.1 [choice]. ``printed``: the weight is lambda itself,
            5e-3 [paper, its exponent's sign derived]; the papers' normalisation of G and alpha is not known, and
            taken literally the term is 1e-5 to 1e-3 of dG: nothing.
        tangent_point: ``end`` takes the Parent's tangent at the end of its turn, the mean over one pass over
            the validation batches; ``path`` is the mean of the gradients of the turn's alpha steps [choice].
        distance: D: ``f_norm``, the squared Frobenius norm (4.31) [derived]; ``l1``, ``cosine`` (Table 4.4).
        curvature: H_G of (4.33): ``ggn`` [paper], ``exact`` or ``outer``.
        reconstruction_weight, reconstruction_scaling: Size of mu L_R of (4.32) in the 1-bit weights. ``relative``:
            the norm of its gradient is this share of that of G, 0.1 [choice]. ``printed``: mu itself, 0.2, of the
            sum (4.23) over all weights [paper], whose gradient is hundreds of times that of G: no sign changes
            any more. A weight of 0 leaves L_R out.
        decoupled: Whether alphas are backtracked (4.42 to 4.53).
        eta: Step of the backtracking [choice]; a step lets a selected alpha grow by the factor 1 + eta psi.
        eta_psi: Step of psi (4.51), root mean square over the edges, see :mod:`search.decoupled` [choice].
        tau: Operations whose rank by weight norm, in [0, 1], is above it are led back [choice].
        psi_start: First value of psi on every edge [choice].
        inherit_weights: Every epoch of the Child starts from the Parent's weights of convolutions, stem and
            classifier ("we inherit weights from the real-valued architecture", p. 109) [derived].
        measure_curvature: Compare Gauss-Newton with exact second derivatives once a round; costs one step of
            double backward and its memory.
        alpha_optimiser: ``descent`` is (4.42) [paper]; ``adam`` is DARTS's.
    """

    alpha_optimiser: Literal["adam", "descent"] = "descent"
    rounds: Epochs
    parent_epochs: Epochs
    child_epochs: Epochs
    tangent: bool = True
    tangent_weight: float = Field(default=0.1, ge=0, le=1e6)
    tangent_scaling: Scaling = "relative"
    tangent_point: Literal["end", "path"] = "end"
    distance: Distance = "f_norm"
    curvature: Curvature = "ggn"
    reconstruction_weight: float = Field(default=0.1, ge=0, le=1e6)
    reconstruction_scaling: Scaling = "relative"
    decoupled: bool = True
    eta: float = Field(default=1e-2, ge=0, le=1e6)
    eta_psi: float = Field(default=1e-2, ge=0, le=1e6)
    tau: float = Field(default=0.5, ge=0, le=1)
    psi_start: float = Field(default=0.1, ge=0, le=1e6)
    inherit_weights: bool = False
    measure_curvature: bool = True

    @model_validator(mode="after")
    def _term_is_not_nothing(self) -> DcpNasSettings:
        if self.tangent and (self.distance, self.curvature) == ("cosine", "outer"):
            raise ValueError(
                "distance cosine with curvature outer is a term that is always 0: the cosine's gradient is orthogonal "
                "to dG/dalphahat; take another curvature"
            )
        return self


MEASURES = (
    "distance",
    "tangent_cosine",
    "tangent_share",
    "reconstruction_share",
    "backtrack_share",
    "curvature_cosine",
)
"""What is measured in the steps of an epoch: columns of history.csv, means of the epoch."""
PLAIN = (
    "path_length",
    "validation_accuracy",
    "selection",
    "selection_changes",
    "psi_range",
    "shares",
    "curvature_due",
)
"""Further attributes that a saved state holds."""


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
        self.selection: dict[str, Tensor] = {}
        self.selection_changes: list[float] = []
        self.psi_range: list[float] = []
        self.shares: dict[str, list[float]] = {name: [] for name in MEASURES}
        self.curvature_due = False
        self._measured: dict[str, list[float]] = {name: [] for name in MEASURES}

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
        self._measured = {name: [] for name in MEASURES}
        if not is_parent and self.settings.inherit_weights:
            self._inherit_weights()
        pulled = not is_parent and self.settings.reconstruction_weight > 0
        loss = learner.train_epoch(
            index,
            index / self.total_steps,
            self._parent_loss if is_parent else self._child_loss,
            self._parent_alpha_step if is_parent else self._child_alpha_step,
            self._pull_together if pulled else None,
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
        loss = exact.cross_entropy(self.parent.predict(batch[0]), batch[1])
        return loss, loss.detach()

    def _parent_tangent(self, batch: Batch) -> Tensor:
        """d f^P / d alpha (4.29) on one batch of all processes, alpha's shape."""
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
        self.curvature_due = self.settings.measure_curvature
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
        return exact.softmax(logits, dim=-1)

    def _child_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-G in the Child's weights (4.32); mu L_R joins as a gradient, D is a function of alphahat only [derived]."""
        loss = -child_objective(self.child.predict(batch[0]), self._targets(batch[0]))
        return loss, loss.detach()

    def _pull_together(self) -> None:
        """Add mu dL_R/dw (4.23, 4.32) to the gradient of -G in the 1-bit weights, mu by the settings."""
        error = reconstruction_error(self.child.network)
        if not error.requires_grad:
            return
        weights = [p for p in self.child.network.parameters() if p.grad is not None]
        found = torch.autograd.grad(error, weights, allow_unused=True)
        pairs = [(p.grad, term) for p, term in zip(weights, found, strict=True) if term is not None]
        reference = torch.stack([gradient.norm() for gradient, _ in pairs]).norm()  # type: ignore[union-attr]
        size = torch.stack([term.norm() for _, term in pairs]).norm()
        settings = self.settings
        factor = term_factor(settings.reconstruction_weight, settings.reconstruction_scaling, size, reference)
        for gradient, term in pairs:
            gradient.add_(factor * term)  # type: ignore[union-attr]
        self._measure("reconstruction_share", float(factor * size / reference) if reference > 0 else 0.0)

    @torch.no_grad()
    def reconstruction(self) -> float:
        """L_R of the Child (4.23), mean over its 1-bit weights."""
        convs = [conv for _, conv in quant_convs(self.child.network) if conv.weight_quantiser.precision == 1]
        count = sum(conv.weight.numel() for conv in convs)
        return float(reconstruction_error(self.child.network)) / max(1, count)

    def _child_alpha_step(self, train: Batch, validation: Batch) -> None:
        """Descend on -G + lambda D in alphahat (4.33) on a validation batch."""
        x, targets = validation[0], self._targets(validation[0])
        settings, alpha = self.settings, self.child.architecture.alpha

        def outputs(table: Tensor) -> Tensor:
            return self.child.predict(x, table)

        def objective(logits: Tensor) -> Tensor:
            return child_objective(logits, targets)

        with straight_through_tangents(self.child.network):
            found = child_gradient(
                outputs,
                objective,
                alpha,
                self.tangent if settings.tangent else None,
                settings.tangent_weight,
                settings.tangent_scaling,
                settings.distance,
                settings.curvature,
                mean_over_processes,
            )
            if self.curvature_due:
                self.curvature_due = False
                direction = found.tangent
                if settings.tangent:
                    direction = distance_gradient(found.tangent, self.tangent, settings.distance)
                cosine = agreement(outputs, objective, alpha, direction, mean_over_processes)
                self._measure("curvature_cosine", cosine)
        self._measure("distance", found.distance)
        self._measure("tangent_cosine", found.cosine)
        self._measure("tangent_share", found.share)
        self._update("child", found.gradient)

    def _inherit_weights(self) -> None:
        """Copy the Parent's weights of convolutions, stem and classifier to the Child."""
        ours, theirs = self.child.network, self.parent.network
        pairs = [
            (mine.weight, other.weight)
            for (_, mine), (_, other) in zip(quant_convs(ours), quant_convs(theirs), strict=True)
        ]
        for name in ("stem", "classifier"):
            mine, other = ours.get_submodule(name), theirs.get_submodule(name)
            pairs += list(zip(mine.parameters(), other.parameters(), strict=True))
        with torch.no_grad():
            for weight, given in pairs:
                weight.copy_(given)

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
            self._measure("backtrack_share", self.backtracking[phase].share)
        else:
            descend()

    def _inherit(self, giver: str, taker: str) -> None:
        """Copy the alphas of one learner to the other, whose backtracking starts from there."""
        with torch.no_grad():
            self.learners[taker].architecture.alpha.copy_(self.learners[giver].architecture.alpha)
        self.backtracking[taker].forget()

    def _measure(self, name: str, value: float | None) -> None:
        """Keep what a step measured, for the epoch's mean and, of the Child, the search's."""
        if value is not None and math.isfinite(value):
            self._measured[name].append(value)
            self.shares[name].append(value)

    def _selection_change(self, phase: str) -> float | None:
        """Share of the operations whose selection for backtracking differs from the epoch's before."""
        now = self.backtracking[phase].selected
        before = self.selection.get(phase)
        self.selection[phase] = now.clone()
        if before is None or not self.settings.decoupled:
            return None
        change = float((now != before).float().mean())
        self.selection_changes.append(change)
        return change

    def _row(self, phase: str, loss: float, accuracy: float) -> dict[str, Any]:
        is_parent = phase == "parent"
        psi = self.backtracking[phase].psi
        if self.settings.decoupled:
            seen = [*self.psi_range, float(psi.min()), float(psi.max())]
            self.psi_range = [min(seen), max(seen)]
        return {
            "phase": phase,
            "epoch": self.context.budget.epochs,
            "loss_parent": loss if is_parent else None,
            "loss_child": None if is_parent else loss,
            "reconstruction": None if is_parent else self.reconstruction(),
            "accuracy_parent": accuracy if is_parent else None,
            "accuracy_child": None if is_parent else accuracy,
            "images_seen": self.context.budget.images_seen,
            **self.learners[phase].diagnose(),
            **{name: mean_share(values) for name, values in self._measured.items()},
            "psi_mean": float(psi.mean()) if self.settings.decoupled else None,
            "psi_min": float(psi.min()) if self.settings.decoupled else None,
            "psi_max": float(psi.max()) if self.settings.decoupled else None,
            "selection_change_share": self._selection_change(phase),
        }

    def state_dict(self) -> dict[str, Any]:
        """Both learners, psi of both, the Parent's tangent, the last accuracy, and what is reported."""
        return {
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "backtracking": {name: entry.state_dict() for name, entry in self.backtracking.items()},
            "tangent": self.tangent,
            "path": self.path,
            **{key: getattr(self, key) for key in PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
            self.backtracking[name].load_state_dict(state["backtracking"][name])
        self.tangent, self.path = state["tangent"].to(self.tangent), state["path"].to(self.path)
        for key in PLAIN:
            setattr(self, key, state[key])
        self.selection = {name: value.to(self.tangent.device) for name, value in self.selection.items()}

    def result(self) -> SearchResult:
        """The genotype of the Child's alphas [choice]; the accuracy is the mixed Child's after its last epoch."""
        tables = {"alphas.csv": alpha_table(self.child.architecture)}
        means = {name: mean_share(values) for name, values in self.shares.items()}
        metrics = {
            **self.child.metrics(),
            "tangent_share": means["tangent_share"],
            "reconstruction_share": means["reconstruction_share"],
            "backtrack_share": means["backtrack_share"],
            "curvature_cosine": means["curvature_cosine"],
            "selection_change_share": mean_share(self.selection_changes),
            "psi_smallest": self.psi_range[0] if self.psi_range else None,
            "psi_largest": self.psi_range[1] if self.psi_range else None,
        }
        return SearchResult(self.child.genotype(self.name), self.validation_accuracy, tables, metrics)
