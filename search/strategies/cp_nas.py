"""CP-NAS (Zhuo et al., IJCAI 2020, Algorithm 9): a 1-bit Child and its real-valued Parent decide together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from search.binary import quant_convs
from search.flips import Flips, SignWatch
from search.genotype import Genotype, collapse, derive
from search.losses import tie_loss
from search.settings import Epochs, Settings, Weight
from search.space import NONE, PAPER, PARAMETER_FREE, Space
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.diagnostics import mean_share, rank_correlation
from search.strategies.signal import Signal, binomial_variance, columns, combined, measure
from search.strategies.ties import DIGITS, Settled, settle
from search.supernet import Architecture, Supernet

PLAIN = (
    "remaining",
    "values",
    "means",
    "variances",
    "evidence",
    "rounds",
    "flip_shares",
    "child_accuracies",
)
"""Attributes of plain values that a saved state holds."""


class CpNasSettings(Settings):
    """Settings of CP-NAS.

    Attributes:
        beta_p: Weight of the gap between Parent and Child (4.15): z = beta_P A_P + (1 - beta_P) A_C, so 0 is "Child
            only" and 1 "Parent only", where the Child decides nothing. Accuracy falls from 2 on [paper]; 0.5 is
            our default, both decide [choice].
        rounds: T, how often every remaining operation is drawn before one is dropped. With 3 and more few nodes
            are decided by ties (``tie_share``); with 1 all survivors of an elimination come from one draw.
        parent: Train and evaluate the Parent; without it the indicator is A_C alone ("Child only").
        share_latent_weights: Child and Parent share the weights of their convolutions.
        partial: Channel sampling: operations see 1 / partial of the channels (PC-DARTS).
        tie_weight: Weight of the loss that ties the Child's weights to the Parent's in each draw, see
            :func:`search.losses.tie_loss` [derived: what fig. 4.5's "Parent weights, Child weights, MSE" may
            mean]; 0 leaves it out [choice].
    """

    beta_p: Weight
    rounds: Epochs
    parent: bool
    share_latent_weights: bool
    partial: int = Field(ge=1, le=8192)
    tie_weight: Weight

    @model_validator(mode="after")
    def _parent_is_there(self) -> CpNasSettings:
        if self.tie_weight > 0 and (not self.parent or self.share_latent_weights):
            raise ValueError("tie_weight needs a Parent with weights of its own")
        return self


def indicator_value(accuracy_child: float, accuracy_parent: float | None, beta_p: float) -> float:
    """z = beta_P (A_P - A_C) + A_C (4.15); A_C where there is no Parent. Accuracies in [0, 1]."""
    if accuracy_parent is None:
        return accuracy_child
    return beta_p * (accuracy_parent - accuracy_child) + accuracy_child


def indicators(means: dict[int, float]) -> dict[int, float]:
    """e(o_k) = softmax over an edge's remaining operations of their mean z (4.16)."""
    values = torch.tensor([means[k] for k in sorted(means)], dtype=torch.float64)
    return dict(zip(sorted(means), torch.softmax(values, 0).tolist(), strict=True))


def edge_table(
    scores: list[dict[int, float]], remaining: list[list[int]], operations: Sequence[str] = PAPER.operations
) -> list[list[float]]:
    """The table that edges are kept by, of the scores of the last operations: one row an edge of a cell.

    An edge on which only ``none`` is left offers its last other operation, but stands behind all edges that kept an
    operation: further behind than the scores reach.

    Args:
        scores: For every edge those of its last operations, which include all that remain.
        remaining: What is left on every edge.
        operations: What the indices mean.
    """
    every = [value for row in scores for value in row.values()]
    behind = max(every) - min(every) + 1
    table = []
    for row, kept in zip(scores, remaining, strict=True):
        only_none = all(operations[op] == NONE for op in kept)
        allowed = row.keys() if only_none else kept
        table.append(
            [
                row[op] - behind * only_none if op in allowed else float("-inf")
                for op in range(len(operations))
            ]
        )
    return table


def sides(rows: list[str], space: Space, separator: str = "") -> tuple[str, str]:
    """One text an edge to one a kind of cell, for the columns ``..._normal`` and ``..._reduce``."""
    normal, reduce = space.by_kind(rows)
    return separator.join(normal), separator.join(reduce)


def draw_round(
    remaining: list[list[int]], seed: int, k: int, t: int, space: Space = PAPER
) -> list[Architecture]:
    """The K architectures of one round: on every edge each remaining operation exactly once, in a seeded order.

    A function of its arguments alone, so that every process and every resumed run draws the same.
    """
    generator = random.Random(f"draw {seed} {k} {t}")
    orders = [generator.sample(sorted(operations), len(operations)) for operations in remaining]
    return [Architecture.of([order[draw] for order in orders], space) for draw in range(k)]


class CpNas(Strategy):
    """Child-Parent search: sample without replacement, train and evaluate both, drop the worst, K from 8 to 1."""

    name: ClassVar[str] = "cp_nas"

    def __init__(self, context: Context, settings: CpNasSettings) -> None:
        super().__init__(context)
        self.settings, self.space = settings, context.space.searched
        self.child = context.place(context.supernet(partial=settings.partial))
        self.parent = (
            context.place(context.supernet(binary=False, partial=settings.partial))
            if settings.parent
            else None
        )
        if self.parent is not None and settings.share_latent_weights:
            for (_, ours), (_, theirs) in zip(quant_convs(self.child), quant_convs(self.parent), strict=True):
                theirs.weight = ours.weight
        self.networks = {"child": self.child} | ({"parent": self.parent} if self.parent is not None else {})
        self.optimisers = {key: context.optimiser(net.parameters()) for key, net in self.networks.items()}
        self.remaining: list[list[int]] = [
            list(range(len(self.space.operations))) for _ in range(self.space.rows)
        ]
        self.values: list[dict[int, list[float]]] = []
        self.means: list[dict[int, float]] = []
        self.variances: list[float] = []
        self.evidence: list[dict[int, list[float]]] = [{k: [] for k in ops} for ops in self.remaining]
        self.rounds: list[dict[str, Any]] = []
        self.signals: list[Signal] = []
        self.flip_shares: list[float] = []
        self.child_accuracies: list[float] = []
        self._open_stage()

    @property
    def total_steps(self) -> int:
        """T (K + ... + 2) draws: 35 T with the papers' eight operations."""
        return self.settings.rounds * sum(range(2, len(self.space.operations) + 1))

    def _open_stage(self) -> None:
        self.values = [{k: [] for k in operations} for operations in self.remaining]
        self.variances = []
        self.child_accuracies = []

    def _place_of(self, index: int) -> tuple[int, int, int]:
        """K, round and draw of step ``index``."""
        for k in range(len(self.space.operations), 1, -1):
            if index < self.settings.rounds * k:
                return k, index // k, index % k
            index -= self.settings.rounds * k
        raise IndexError(index)

    def step(self, index: int) -> list[dict[str, Any]]:
        """One draw: train and evaluate Child and Parent; after T K draws drop one operation on every edge."""
        k, t, draw = self._place_of(index)
        architecture = draw_round(self.remaining, self.context.seed, k, t, self.space)[draw]
        watch = SignWatch(self.child, only=self.child.active_parameters(architecture))
        losses, accuracies, images = self._train_and_evaluate(architecture, index)
        flips = watch.flips()
        z = indicator_value(accuracies["child"], accuracies.get("parent"), self.settings.beta_p)
        for values, operation in zip(self.values, architecture.rows, strict=True):
            values[operation].append(z)
        self.child_accuracies.append(accuracies["child"])
        self.variances.append(
            binomial_variance(accuracies["child"], accuracies.get("parent"), self.settings.beta_p, images)
        )
        self.flip_shares += [] if flips.share is None else [flips.share]
        if draw == k - 1:
            self._weigh_round(t)
            if t == self.settings.rounds - 1:
                self._drop_worst(k)
        return [self._row(index, (k, t, draw), architecture, losses, accuracies, z, flips)]

    def _train_and_evaluate(
        self, architecture: Architecture, index: int
    ) -> tuple[dict[str, float], dict[str, float], int]:
        """One epoch of each network on a drawn architecture: losses, accuracies, and the images they are of."""
        losses, accuracies, images = {}, {}, 0
        for key, net in self.networks.items():

            def predict(x: Tensor, net: Supernet = net) -> Tensor:
                return net(x, architecture)

            losses[key] = self.context.train_epoch(
                predict,
                net.active_parameters(architecture),
                self.optimisers[key],
                epoch=index,
                progress=index / self.total_steps,
                penalty=self._tie(architecture) if key == "child" and self.settings.tie_weight > 0 else None,
            )
            evaluation = self.context.evaluate(net, predict)
            accuracies[key], images = evaluation.accuracy, evaluation.images
        return losses, accuracies, images

    def _tie(self, architecture: Architecture) -> Callable[[], Tensor]:
        """The loss that ties the drawn Child's weights to the Parent's."""
        assert self.parent is not None
        drawn = {id(parameter) for parameter in self.child.active_parameters(architecture)}
        convs = [
            (ours, theirs.weight)
            for (_, ours), (_, theirs) in zip(quant_convs(self.child), quant_convs(self.parent), strict=True)
            if id(ours.weight) in drawn
        ]
        return lambda: self.settings.tie_weight * tie_loss(convs)

    def _row(
        self,
        index: int,
        place: tuple[int, int, int],
        architecture: Architecture,
        losses: dict[str, float],
        accuracies: dict[str, float],
        z: float,
        flips: Flips,
    ) -> dict[str, Any]:
        """A row of history.csv; ``sign_flip_share`` is of the 1-bit weights that the draw trained."""
        normal, reduce = architecture.encode()
        return {
            "step": index,
            **dict(zip(("k", "round", "draw"), place, strict=True)),
            "epoch": self.context.budget.epochs,
            "accuracy_child": accuracies["child"],
            "accuracy_parent": accuracies.get("parent"),
            "z": z,
            "loss_child": losses["child"],
            "loss_parent": losses.get("parent"),
            "images_seen": self.context.budget.images_seen,
            "sign_flips": flips.changed,
            "sign_flip_share": flips.share,
            "normal": normal,
            "reduce": reduce,
        }

    def _weigh_round(self, t: int) -> None:
        """Keep, for every operation of a finished round, z minus the round's mean: comparable over all rounds."""
        average = fmean(values[t] for values in self.values[0].values())
        for evidence, drawn in zip(self.evidence, self.values, strict=True):
            for operation, values in drawn.items():
                evidence[operation].append(values[t] - average)

    def _drop_worst(self, k: int) -> None:
        """Eliminate among K operations: drop the operation with the smallest indicator on every edge."""
        earlier = self.means
        self.means = [{op: fmean(found) for op, found in values.items()} for values in self.values]
        scores = [indicators(means) for means in self.means]
        self.signals.append(measure(self.values, self.variances))
        dropped, ties = [], 0
        for edge, score in enumerate(scores):
            lowest = round(min(score.values()), DIGITS)
            worst = [op for op, value in score.items() if round(value, DIGITS) == lowest]
            ties += len(worst) > 1
            dropped.append(random.Random(f"tie {self.context.seed} {k} {edge}").choice(worst))
        self.remaining = [
            [op for op in ops if op != worst] for ops, worst in zip(self.remaining, dropped, strict=True)
        ]
        self.rounds.append(self._diagnose(k, earlier, scores, dropped, ties))
        if k > 2:
            self._open_stage()

    def _diagnose(
        self,
        k: int,
        earlier: list[dict[int, float]],
        scores: list[dict[int, float]],
        dropped: list[int],
        ties: int,
    ) -> dict[str, Any]:
        ordered = [sorted(score.values()) for score in scores]
        survivors = [op for operations in self.remaining for op in operations]
        surviving = sides(["".join(map(str, operations)) for operations in self.remaining], self.space, "|")
        gone = sides(list(map(str, dropped)), self.space)
        return {
            "k": k,
            "tau": rank_correlation(earlier, self.means),
            "mean_margin": fmean(values[1] - values[0] for values in ordered),
            "ties": ties,
            **columns(self.signals[-1]),
            "parameter_free_share": fmean(self.space.operations[op] in PARAMETER_FREE for op in survivors),
            "collapsed": int(collapse(self.genotype()).collapsed),
            "surviving_normal": surviving[0],
            "surviving_reduce": surviving[1],
            "dropped_normal": gone[0],
            "dropped_reduce": gone[1],
        }

    def settled(self) -> Settled:
        """What the survivors of the present state are kept by, ties put in order.

        An edge counts by the mean, over all draws of its operation in the whole search, of z minus the mean z of
        the draw's round: by the evidence of 7 T draws in the end, not of the last one or two.
        """
        scores = [
            {op: fmean(found) for op, found in evidence.items() if op in means}
            for evidence, means in zip(self.evidence, self.means, strict=True)
        ]
        pairs = zip(self.space.by_kind(scores), self.space.by_kind(self.remaining), strict=True)
        normal, reduce = (edge_table(found, kept, self.space.operations) for found, kept in pairs)
        return settle(normal, reduce, self.context.seed, space=self.space)

    def genotype(self) -> Genotype:
        """The genotype of the present state: on every edge its best remaining operation, two best edges a node."""
        found = self.settled()
        return derive(
            found.normal,
            found.reduce,
            name=f"{self.name}-s{self.context.seed}",
            source=f"{self.name} search, seed {self.context.seed}",
            space=self.space,
        )

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, remaining operations, the values since the last elimination, all that is reported."""
        return {
            "networks": {key: net.state_dict() for key, net in self.networks.items()},
            "optimisers": {key: optimiser.state_dict() for key, optimiser in self.optimisers.items()},
            "signals": [tuple(signal) for signal in self.signals],
            **{key: getattr(self, key) for key in PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        for key, net in self.networks.items():
            net.load_state_dict(state["networks"][key])
            self.optimisers[key].load_state_dict(state["optimisers"][key])
        self.signals = [Signal(*signal) for signal in state["signals"]]
        for key in PLAIN:
            setattr(self, key, state[key])

    def result(self) -> SearchResult:
        """The genotype; its validation accuracy is the mean of the Child's before the last elimination (K = 2)."""
        metrics = {
            **columns(combined(self.signals)),
            "tie_share": self.settled().share,
            "sign_flip_share": mean_share(self.flip_shares),
        }
        tables = {"rounds.csv": self.rounds}
        return SearchResult(self.genotype(), fmean(self.child_accuracies), tables, metrics)
