"""BNAS (Chen et al., AAAI 2020): PC-DARTS proposes what is weak, sampling decides what is dropped.

Not the BNAS of Kim et al. (ECCV 2020), a different method of the same name. The paper's equations are not at hand: all
here is [derived] from descriptions and an unofficial implementation. While more than one operation is left (K of them):

1. train weights and alphas of the supernet with partial channels and edge normalisation, as PC-DARTS does;
2. on every edge take the half of the operations with the smallest alpha, and draw only those, T times without
   replacement: train the drawn network for an epoch, take its accuracy;
3. q = softmax of the mean accuracies of an edge's sampled operations; s <- s / 2 + q for these, and
   s <- s / 2 + (max q + mean q) / 2 for the others, which were not put at risk;
4. drop the operation with the smallest s on every edge; K <- K - 1.
"""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from search import exact
from search.flips import SignWatch
from search.genotype import Genotype, derive
from search.operations import Zero
from search.settings import Epochs
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.cp_nas import draw_round, edge_table, sides
from search.strategies.diagnostics import mean_share
from search.strategies.differentiable import AlphaSettings, Batch, Learner, edge_weights
from search.strategies.signal import Signal, binomial_variance, columns, combined, measure
from search.strategies.ties import DIGITS, Settled, settle
from search.supernet import Architecture, SuperCell, SuperEdge

PLAIN = (
    "remaining",
    "last",
    "candidates",
    "memory",
    "values",
    "variances",
    "rounds",
    "entropy_drops",
    "accuracies",
)
"""Attributes of plain values that a saved state holds."""


class BnasSettings(AlphaSettings):
    """Settings of BNAS (Chen); all [choice].

    Attributes:
        warm_up: First epochs, in which the alphas rest.
        alpha_epochs: Epochs of weights and alphas before every elimination.
        rounds: T, how often every sampled operation is drawn before one is dropped.
        partial: Operations see 1 / partial of the channels.
    """

    warm_up: int = Field(ge=0, le=100_000)
    alpha_epochs: Epochs
    rounds: Epochs
    partial: int = Field(ge=1, le=8192)


class Place(NamedTuple):
    """Where a step stands: K operations left, and an alpha epoch or a draw of a round."""

    k: int
    epoch: int | None
    round: int | None
    draw: int | None


def sampled(k: int) -> int:
    """How many of K operations are put at risk: half, rounded up."""
    return (k + 1) // 2


def remembered(memory: dict[int, float], means: dict[int, float]) -> dict[int, float]:
    """s after an elimination, of every operation of an edge.

    Args:
        memory: s before.
        means: Mean accuracies of the sampled ones.
    """
    order = sorted(means)
    q = dict(
        zip(order, torch.softmax(torch.tensor([means[op] for op in order]).double(), 0).tolist(), strict=True)
    )
    rest = (max(q.values()) + fmean(q.values())) / 2
    return {op: value / 2 + q.get(op, rest) for op, value in memory.items()}


class Bnas(Strategy):
    """Alternate PC-DARTS with sampling of the operations it likes least; K from 8 to 1. A step is an epoch."""

    name: ClassVar[str] = "bnas"

    def __init__(self, context: Context, settings: BnasSettings) -> None:
        super().__init__(context)
        self.settings, self.space = settings, context.space.searched
        self.learner = Learner(context, settings, partial=settings.partial, edges=True)
        self.remaining: list[list[int]] = [
            list(range(len(self.space.operations))) for _ in range(self.space.rows)
        ]
        self.last = self.remaining
        self.candidates: list[list[int]] = []
        self.memory: list[dict[int, float]] = [dict.fromkeys(ops, 0.0) for ops in self.remaining]
        self.values: list[dict[int, list[float]]] = []
        self.variances: list[float] = []
        self.rounds: list[dict[str, Any]] = []
        self.signals: list[Signal] = []
        self.entropy_drops: list[float] = []
        self.accuracies: list[float] = []

    @property
    def total_steps(self) -> int:
        """Warm-up, and for K = 8 to 2 the alpha epochs and T draws of half the operations."""
        stages = range(2, len(self.space.operations) + 1)
        draws = self.settings.rounds * sum(sampled(k) for k in stages)
        return self.settings.warm_up + self.settings.alpha_epochs * len(stages) + draws

    def _place_of(self, index: int) -> Place:
        warm_up, alphas = self.settings.warm_up, self.settings.alpha_epochs
        most = len(self.space.operations)
        for k in range(most, 1, -1):
            epochs = alphas + (warm_up if k == most else 0)
            if index < epochs:
                return Place(k, index, None, None)
            index -= epochs
            draws = sampled(k)
            if index < self.settings.rounds * draws:
                return Place(k, None, *divmod(index, draws))
            index -= self.settings.rounds * draws
        raise IndexError(index)

    def step(self, index: int) -> list[dict[str, Any]]:
        """One epoch of the mixture or of a drawn network."""
        place = self._place_of(index)
        row = self._mix(index, place) if place.epoch is not None else self._sample(index, place)
        budget = self.context.budget
        head = {"step": index, "k": place.k, "round": place.round, "draw": place.draw}
        return [{**head, "epoch": budget.epochs, "images_seen": budget.images_seen, **row}]

    # ---- the mixture: PC-DARTS

    def _mix(self, index: int, place: Place) -> dict[str, Any]:
        warming = index < self.settings.warm_up
        loss = self.learner.train_epoch(
            index, index / self.total_steps, self._weight_loss, None if warming else self._alpha_step
        )
        accuracy = self.learner.accuracy()
        row = {
            "phase": "mixture",
            "accuracy_child": accuracy,
            "loss_child": loss,
            **self.learner.diagnose(),
            "normal": None,
            "reduce": None,
        }
        if self._place_of(index + 1).epoch is None:
            self._open_sampling(place.k)
            self.entropy_drops.append(math.log(place.k) - row["entropy"])
        return row

    def _cross_entropy(self, batch: Batch) -> Tensor:
        return exact.cross_entropy(self.learner.predict(batch[0]), batch[1])

    def _weight_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = self._cross_entropy(batch)
        return loss, loss.detach()

    def _alpha_step(self, train: Batch, validation: Batch) -> None:
        parameters = list(self.learner.architecture.parameters())
        self.learner.alpha_update(torch.autograd.grad(self._cross_entropy(validation), parameters))

    # ---- sampling

    def _open_sampling(self, k: int) -> None:
        """The half of every edge's operations with the smallest alpha; they alone can lose."""
        rows = self.learner.alpha.detach().double().flatten(0, 1).tolist()
        self.candidates = [
            sorted(sorted(operations, key=lambda op, row=row: row[op])[: sampled(k)])  # type: ignore[misc]
            for row, operations in zip(rows, self.remaining, strict=True)
        ]
        self.values = [{op: [] for op in operations} for operations in self.candidates]
        self.variances, self.accuracies = [], []

    def _sample(self, index: int, place: Place) -> dict[str, Any]:
        assert place.round is not None and place.draw is not None
        draws = sampled(place.k)
        architecture = draw_round(self.candidates, self.context.seed, draws, place.round, self.space)[
            place.draw
        ]
        network = self.learner.network
        active = network.active_parameters(architecture)
        watch = SignWatch(network, only=active)
        loss, accuracy, images = self._train_and_evaluate(architecture, index)
        flips = watch.flips()
        for values, operation in zip(self.values, architecture.rows, strict=True):
            values[operation].append(accuracy)
        self.variances.append(binomial_variance(accuracy, None, 0.0, images))
        self.accuracies.append(accuracy)
        if (place.round, place.draw) == (self.settings.rounds - 1, draws - 1):
            self._drop_worst(place.k)
        normal, reduce = architecture.encode()
        signs = {"sign_flips": flips.changed, "sign_flip_share": flips.share}
        unmixed = dict.fromkeys(("entropy", "mean_margin", "tau", "parameter_free_share", "collapsed"))
        return {
            "phase": "sample",
            "accuracy_child": accuracy,
            "loss_child": loss,
            **signs,
            **unmixed,
            "normal": normal,
            "reduce": reduce,
        }

    def _train_and_evaluate(self, architecture: Architecture, index: int) -> tuple[float, float, int]:
        """One epoch of a drawn network: its loss, its accuracy and the images that is of."""
        network = self.learner.network

        def predict(x: Tensor) -> Tensor:
            return network(x, architecture)

        loss = self.context.train_epoch(
            predict,
            network.active_parameters(architecture),
            self.learner.weight_optimiser,
            epoch=index,
            progress=index / self.total_steps,
        )
        evaluation = self.context.evaluate(network, predict)
        return loss, evaluation.accuracy, evaluation.images

    def _drop_worst(self, k: int) -> None:
        """Eliminate: s of every operation, the smallest dropped on every edge, among equals by a seeded draw."""
        means = [{op: fmean(found) for op, found in values.items()} for values in self.values]
        memory = [remembered(old, found) for old, found in zip(self.memory, means, strict=True)]
        dropped, ties = [], 0
        for edge, scores in enumerate(memory):
            lowest = round(min(scores.values()), DIGITS)
            worst = [op for op, value in scores.items() if round(value, DIGITS) == lowest]
            ties += len(worst) > 1
            dropped.append(random.Random(f"tie {self.context.seed} {k} {edge}").choice(worst))
        self.last = self.remaining
        self.remaining = [
            [op for op in ops if op != worst] for ops, worst in zip(self.remaining, dropped, strict=True)
        ]
        self.memory = [
            {op: value for op, value in scores.items() if op != worst}
            for scores, worst in zip(memory, dropped, strict=True)
        ]
        self.rounds.append(self._diagnose(k, dropped, ties))
        self._prune()

    def _diagnose(self, k: int, dropped: list[int], ties: int) -> dict[str, Any]:
        if sampled(k) > 1:
            self.signals.append(measure(self.values, self.variances))
        surviving = sides(["".join(map(str, operations)) for operations in self.remaining], self.space, "|")
        gone = sides(list(map(str, dropped)), self.space)
        return {
            "k": k,
            "ties": ties,
            **(columns(self.signals[-1]) if sampled(k) > 1 else dict.fromkeys(columns(self.signals[-1]))),
            "entropy_drop": self.entropy_drops[-1],
            "surviving_normal": surviving[0],
            "surviving_reduce": surviving[1],
            "dropped_normal": gone[0],
            "dropped_reduce": gone[1],
        }

    def _prune(self) -> None:
        """Take dropped operations out of the mixture and out of the network."""
        every = set(range(len(self.space.operations)))
        mask = torch.zeros(self.space.rows, len(every))
        for row, operations in zip(mask, self.remaining, strict=True):
            row[sorted(every - set(operations))] = float("-inf")
        alpha = self.learner.architecture.alpha
        self.learner.mask = mask.view(alpha.shape).to(alpha)
        normal, reduce = self.space.by_kind(self.remaining)
        for cell in self.learner.network.cells:
            assert isinstance(cell, SuperCell)
            remaining = reduce if cell.plan.reduction else normal
            for edge, operations in zip(cell.edges, remaining, strict=True):
                assert isinstance(edge, SuperEdge)
                for op in every - set(operations):
                    edge.operations[op] = Zero(edge.stride)

    # ---- the result

    def settled(self) -> Settled:
        """What survivors are kept by: the weights of their edges, PC-DARTS's [choice]; ties put in order."""
        edges = self.learner.architecture.edges
        assert edges is not None
        factors = edge_weights(edges.detach().double().cpu(), self.space).flatten().tolist()
        scores = [dict.fromkeys(ops, factor) for ops, factor in zip(self.last, factors, strict=True)]
        pairs = zip(self.space.by_kind(scores), self.space.by_kind(self.remaining), strict=True)
        normal, reduce = (edge_table(found, kept, self.space.operations) for found, kept in pairs)
        return settle(normal, reduce, self.context.seed, space=self.space)

    def genotype(self) -> Genotype:
        """Every edge's last operation, two edges a node."""
        found = self.settled()
        return derive(
            found.normal,
            found.reduce,
            name=f"{self.name}-s{self.context.seed}",
            source=f"{self.name} search, seed {self.context.seed}",
            space=self.space,
        )

    def state_dict(self) -> dict[str, Any]:
        """The learner and all that is known of the operations."""
        signals = [tuple(signal) for signal in self.signals]
        plain = {key: getattr(self, key) for key in PLAIN}
        return {"learner": self.learner.state_dict(), "signals": signals, **plain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state; dropped operations leave the network first, their weights were not saved."""
        for key in PLAIN:
            setattr(self, key, state[key])
        self.signals = [Signal(*signal) for signal in state["signals"]]
        if self.rounds:
            self._prune()
        self.learner.load_state_dict(state["learner"])

    def result(self) -> SearchResult:
        """The genotype; its validation accuracy is the mean of the last drawn networks (K = 2)."""
        metrics = {
            **columns(combined(self.signals)),
            "tie_share": self.settled().share,
            "sign_flip_share": mean_share(self.learner.flip_shares),
            "entropy_drop": mean_share(self.entropy_drops),
        }
        return SearchResult(self.genotype(), fmean(self.accuracies), {"rounds.csv": self.rounds}, metrics)
