"""CP-NAS (method.md, section 3; Zhuo et al., IJCAI 2020, Algorithm 9), and BNAS (Chen) as its special case."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import Field

from search.binary import quant_convs
from search.genotype import EDGES, OPERATIONS, PARAMETER_FREE, Genotype, collapse, derive
from search.settings import Epochs, Settings, Weight
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.diagnostics import rank_correlation
from search.supernet import Architecture

EDGE_COUNT = 2 * len(EDGES)
"""Edges of both kinds of cell: rows 0 to 13 are the normal cell's, 14 to 27 the reduction cell's."""


class CpNasSettings(Settings):
    """Settings of CP-NAS.

    Attributes:
        beta_p: Weight of the gap between Parent and Child (4.15).
        rounds: T, how often every remaining operation is drawn before one is dropped.
        parent: Train and evaluate the Parent; without it the indicator is A_C alone.
        share_latent_weights: Child and Parent share the weights of their convolutions.
        partial: Channel sampling: operations see 1 / partial of the channels (BNAS).
    """

    beta_p: Weight
    rounds: Epochs
    parent: bool
    share_latent_weights: bool
    partial: int = Field(ge=1, le=8192)


def indicator_value(accuracy_child: float, accuracy_parent: float | None, beta_p: float) -> float:
    """z = beta_P (A_P - A_C) + A_C (4.15); A_C where there is no Parent. Accuracies in [0, 1]."""
    if accuracy_parent is None:
        return accuracy_child
    return beta_p * (accuracy_parent - accuracy_child) + accuracy_child


def indicators(means: dict[int, float]) -> dict[int, float]:
    """e(o_k) = softmax over an edge's remaining operations of their mean z (4.16)."""
    values = torch.tensor([means[k] for k in sorted(means)], dtype=torch.float64)
    return dict(zip(sorted(means), torch.softmax(values, 0).tolist(), strict=True))


def draw_round(remaining: list[list[int]], seed: int, k: int, t: int) -> list[Architecture]:
    """The K architectures of one round: on every edge each remaining operation exactly once, in a seeded order.

    A function of its arguments alone, so that every process and every resumed run draws the same.
    """
    generator = random.Random(f"draw {seed} {k} {t}")
    orders = [generator.sample(sorted(operations), len(operations)) for operations in remaining]
    half = len(EDGES)
    return [
        Architecture(
            tuple(order[draw] for order in orders[:half]), tuple(order[draw] for order in orders[half:])
        )
        for draw in range(k)
    ]


class CpNas(Strategy):
    """Child-Parent search: sample without replacement, train and evaluate both, drop the worst, K from 8 to 1."""

    name: ClassVar[str] = "cp_nas"

    def __init__(self, context: Context, settings: CpNasSettings) -> None:
        super().__init__(context)
        self.settings = settings
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
        self.remaining: list[list[int]] = [list(range(len(OPERATIONS))) for _ in range(EDGE_COUNT)]
        self.values: list[dict[int, list[float]]] = []
        self.means: list[dict[int, float]] = []
        self.rounds: list[dict[str, Any]] = []
        self.child_accuracies: list[float] = []
        self._open_stage()

    @property
    def total_steps(self) -> int:
        """T (8 + 7 + ... + 2) = 35 T draws."""
        return self.settings.rounds * sum(range(2, len(OPERATIONS) + 1))

    def _open_stage(self) -> None:
        self.values = [{k: [] for k in operations} for operations in self.remaining]
        self.child_accuracies = []

    def _place_of(self, index: int) -> tuple[int, int, int]:
        """K, round and draw of step ``index``."""
        for k in range(len(OPERATIONS), 1, -1):
            if index < self.settings.rounds * k:
                return k, index // k, index % k
            index -= self.settings.rounds * k
        raise IndexError(index)

    def step(self, index: int) -> list[dict[str, Any]]:
        """One draw: train and evaluate Child and Parent; after T K draws drop one operation on every edge."""
        k, t, draw = self._place_of(index)
        architecture = draw_round(self.remaining, self.context.seed, k, t)[draw]
        losses, accuracies = {}, {}
        for key, net in self.networks.items():
            losses[key] = self.context.train_epoch(
                lambda x, net=net: net(x, architecture),  # type: ignore[misc]
                net.active_parameters(architecture),
                self.optimisers[key],
                epoch=index,
                progress=index / self.total_steps,
            )
            accuracies[key] = self.context.evaluate(net, lambda x, net=net: net(x, architecture)).accuracy  # type: ignore[misc]
        self.child_accuracies.append(accuracies["child"])
        z = indicator_value(accuracies["child"], accuracies.get("parent"), self.settings.beta_p)
        for values, operation in zip(self.values, architecture.normal + architecture.reduce, strict=True):
            values[operation].append(z)
        if (t, draw) == (self.settings.rounds - 1, k - 1):
            self._drop_worst(k)
        normal, reduce = architecture.encode()
        return [
            {
                "step": index,
                "k": k,
                "round": t,
                "draw": draw,
                "epoch": self.context.budget.epochs,
                "accuracy_child": accuracies["child"],
                "accuracy_parent": accuracies.get("parent"),
                "z": z,
                "loss_child": losses["child"],
                "loss_parent": losses.get("parent"),
                "images_seen": self.context.budget.images_seen,
                "normal": normal,
                "reduce": reduce,
            }
        ]

    def _drop_worst(self, k: int) -> None:
        """Close the stage of K operations: drop the operation with the smallest indicator on every edge."""
        earlier = self.means
        self.means = [{op: fmean(found) for op, found in values.items()} for values in self.values]
        scores = [indicators(means) for means in self.means]
        dropped, ties = [], 0
        for edge, score in enumerate(scores):
            lowest = min(score.values())
            worst = [op for op, value in score.items() if value == lowest]
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
        half = len(EDGES)
        surviving = ["".join(map(str, operations)) for operations in self.remaining]
        return {
            "k": k,
            "tau": rank_correlation(earlier, self.means),
            "mean_margin": fmean(values[1] - values[0] for values in ordered),
            "ties": ties,
            "parameter_free_share": fmean(OPERATIONS[op] in PARAMETER_FREE for op in survivors),
            "collapsed": int(collapse(self.genotype()).collapsed),
            "surviving_normal": "|".join(surviving[:half]),
            "surviving_reduce": "|".join(surviving[half:]),
            "dropped_normal": "".join(map(str, dropped[:half])),
            "dropped_reduce": "".join(map(str, dropped[half:])),
        }

    def genotype(self) -> Genotype:
        """The genotype of the present state: on every edge its best remaining operation, two best edges a node.

        An edge on which only ``none`` is left offers its last other operation, but stands behind all edges that
        kept an operation.
        """
        half = len(EDGES)
        tables = [
            self._table(self.means[:half], self.remaining[:half]),
            self._table(self.means[half:], self.remaining[half:]),
        ]
        return derive(
            *tables,
            name=f"{self.name}-s{self.context.seed}",
            source=f"{self.name} search, seed {self.context.seed}",
            edges=self.context.space.edges,
        )

    @staticmethod
    def _table(means: list[dict[int, float]], remaining: list[list[int]]) -> list[list[float]]:
        none = OPERATIONS.index("none")
        every = [value for row in means for value in row.values()]
        behind = max(every) - min(every) + 1
        table = []
        for row, kept in zip(means, remaining, strict=True):
            only_none = all(op == none for op in kept)
            allowed = row.keys() if only_none else kept
            table.append(
                [
                    row[op] - behind * only_none if op in allowed else float("-inf")
                    for op in range(len(OPERATIONS))
                ]
            )
        return table

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, remaining operations and the values of the open stage."""
        return {
            "networks": {key: net.state_dict() for key, net in self.networks.items()},
            "optimisers": {key: optimiser.state_dict() for key, optimiser in self.optimisers.items()},
            "remaining": self.remaining,
            "values": self.values,
            "means": self.means,
            "rounds": self.rounds,
            "child_accuracies": self.child_accuracies,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        for key, net in self.networks.items():
            net.load_state_dict(state["networks"][key])
            self.optimisers[key].load_state_dict(state["optimisers"][key])
        self.remaining, self.values = state["remaining"], state["values"]
        self.means, self.rounds = state["means"], state["rounds"]
        self.child_accuracies = state["child_accuracies"]

    def result(self) -> SearchResult:
        """The genotype; its validation accuracy is the mean of the Child's in the last stage (K = 2)."""
        return SearchResult(self.genotype(), fmean(self.child_accuracies), {"rounds.csv": self.rounds})
