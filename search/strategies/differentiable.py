"""What the differentiable methods share: alphas, their mixture (4.28), alpha steps between weight steps.

A supernet mixes all operations of an edge by a softmax of the edge's alphas. Weights are trained on the
train half, alphas on batches of the validation half, one alpha step ahead of each weight step (DARTS, Liu et
al. 2019). Alpha steps compute in float32 whatever the precision: no loss scale guards their small gradients against
float16, and curvature is made of differences. They see batch statistics, as all operations of a supernet always do,
and leave the running statistics of the stem alone: those come from the train half.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, product
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from search import exact, optimisers
from search.flips import Flips, SignWatch
from search.genotype import Genotype, derive
from search.settings import Settings, WeightDecay
from search.space import INPUTS, PAPER, Space
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.diagnostics import diagnose_alpha, entropy, mean_share
from search.strategies.ties import Settled, settle
from search.supernet import Mixture
from search.training import average_gradients, reduce_sum, update

Batch = tuple[Tensor, Tensor]
VALIDATION_ORDER = 1
"""Added to the run's seed for the order of the validation batches of the alpha steps."""


class AlphaSettings(Settings):
    """How the architecture parameters are trained.

    Attributes:
        alpha_optimiser: ``adam`` (DARTS) or ``descent``, plain gradient steps (4.42).
        alpha_learning_rate: Constant over the search; eta_1 of (4.42).
        alpha_weight_decay: L2 on the alphas.
        alpha_beta1, alpha_beta2: Adam's decay rates (DARTS: 0.5 and 0.999).
        alpha_start: Standard deviation of the first alphas (DARTS: 1e-3).
    """

    alpha_optimiser: Literal["adam", "descent"] = "adam"
    alpha_learning_rate: float = Field(gt=0, le=1e6)
    alpha_weight_decay: WeightDecay
    alpha_beta1: float = Field(default=0.5, ge=0, lt=1)
    alpha_beta2: float = Field(default=0.999, ge=0, lt=1)
    alpha_start: float = Field(default=1e-3, ge=0, le=100)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser of the alphas."""
        if self.alpha_optimiser == "descent":
            return optimisers.SGD(parameters, self.alpha_learning_rate, weight_decay=self.alpha_weight_decay)
        return optimisers.Adam(
            parameters,
            self.alpha_learning_rate,
            betas=(self.alpha_beta1, self.alpha_beta2),
            weight_decay=self.alpha_weight_decay,
        )


class ArchitectureParameters(nn.Module):
    """The alphas of both kinds of cell and, for PC-DARTS, one parameter an edge.

    Args:
        seed: Decides the first values.
        start: Standard deviation of the first values.
        edges: Whether the edges have parameters of their own.
        space: What is searched.

    Attributes:
        alpha: (kinds of cell, edges, operations) in the order of the space; (2, 14, 8) in the papers'.
        edges: (kinds of cell, edges), or None.
    """

    def __init__(self, seed: int, start: float, edges: bool = False, space: Space = PAPER) -> None:
        super().__init__()
        self.space = space
        generator = torch.Generator().manual_seed(seed)
        shape = (len(space.kinds), len(space.edges))
        self.alpha = nn.Parameter(start * exact.normal(*shape, len(space.operations), generator=generator))
        self.edges = nn.Parameter(start * exact.normal(*shape, generator=generator)) if edges else None

    def mixture(self, alpha: Tensor | None = None) -> Mixture:
        """The mixture of these parameters, or of another table ``alpha`` of the same shape in place of theirs."""
        weights = mixing_weights(self.alpha if alpha is None else alpha)
        if self.edges is None:
            return Mixture(weights[0], weights[-1])
        factors = edge_weights(self.edges, self.space)
        return Mixture(weights[0], weights[-1], factors[0], factors[-1])


def mixing_weights(alpha: Tensor) -> Tensor:
    """Softmax of alpha over the operations of each edge (4.28); same shape."""
    return exact.softmax(alpha, dim=-1)


def edge_weights(edges: Tensor, space: Space = PAPER) -> Tensor:
    """PC-DARTS's edge normalisation (Xu et al. 2020): softmax over the edges into each node; (..., edges)."""
    incoming = list(range(INPUTS, INPUTS + space.nodes))
    return torch.cat([exact.softmax(part, dim=-1) for part in edges.split(incoming, dim=-1)], dim=-1)


def alpha_table(parameters: ArchitectureParameters) -> list[dict[str, Any]]:
    """One row a cell, edge and operation: alpha, its mixing weight, the edge's weight where it has one."""
    alpha, space = parameters.alpha.detach().double().cpu(), parameters.space
    weights, factors = mixing_weights(alpha), None
    if parameters.edges is not None:
        factors = edge_weights(parameters.edges.detach().double().cpu(), space)
    rows = []
    for kind, edge, k in product(*map(range, alpha.shape)):
        row: dict[str, Any] = {
            "cell": space.kinds[kind],
            "edge": edge,
            "source": space.edges[edge][0],
            "node": space.edges[edge][1],
            "op": space.operations[k],
            "alpha": float(alpha[kind, edge, k]),
            "weight": float(weights[kind, edge, k]),
        }
        if factors is not None:
            row["edge_weight"] = float(factors[kind, edge])
        rows.append(row)
    return rows


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Within, batch norms in training mode leave running statistics alone: the stem's, unless others track some."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    tracking = [module for module in norms if module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def paired_batches(context: Context, epoch: int) -> Iterator[tuple[Batch, Batch]]:
    """Each train batch of an epoch with a validation batch; a shorter validation half is passed again."""
    train = context.batches(context.train, training=True)
    validation = context.batches(context.validation, training=True, seed_offset=VALIDATION_ORDER)
    passes = -(-len(train) // len(validation))
    stream = chain.from_iterable(validation.epoch(epoch * passes + number) for number in range(passes))
    return zip(train.epoch(epoch), stream, strict=False)


class Learner:
    """A mixed supernet with its architecture parameters and an optimiser for each of the two.

    Args:
        context: Data, space, budget.
        settings: How alphas are trained.
        binary: Overrides the precision of the space (the Parent is the real twin).
        partial: Operations see 1 / partial of the channels (PC-DARTS).
        edges: Whether edges have parameters (PC-DARTS).

    Attributes:
        mask: Added to the alphas: 0, or minus infinity for an operation that was dropped; None for none dropped.
        flips: Signs of 1-bit weights that changed in the last epoch.
    """

    def __init__(
        self,
        context: Context,
        settings: AlphaSettings,
        *,
        binary: bool | None = None,
        partial: int = 1,
        edges: bool = False,
    ) -> None:
        self.context = context
        self.network = context.supernet(binary=binary, partial=partial)
        context.place(self.network)
        self.space = context.space.searched
        architecture = ArchitectureParameters(context.seed, settings.alpha_start, edges, self.space)
        self.architecture = architecture.to(context.fabric.device)
        self.diagnosed = self.architecture.alpha.detach().clone()
        self.mask: Tensor | None = None
        self.flips = Flips(0, 0)
        self.flip_shares: list[float] = []
        self.weight_optimiser = context.optimiser(self.network.parameters())
        self.alpha_optimiser = settings.optimiser(self.architecture.parameters())

    @property
    def alpha(self) -> Tensor:
        """Alpha of the operations that were not dropped; minus infinity for the others."""
        alpha = self.architecture.alpha
        return alpha if self.mask is None else alpha + self.mask

    def predict(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) to logits of the mixture, of another alpha where one is given; float32 at least."""
        with self.context.autocast():
            logits = self.network(x, self.architecture.mixture(self.alpha if alpha is None else alpha))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def train_epoch(
        self,
        epoch: int,
        progress: float,
        weight_loss: Callable[[Batch], tuple[Tensor, Tensor]],
        alpha_step: Callable[[Batch, Batch], None] | None,
        amend: Callable[[], None] | None = None,
    ) -> float:
        """One epoch of weight steps over the train half, each after an alpha step.

        Args:
            epoch: Decides the order of the images.
            progress: Position in the schedule of the weights' learning rate, in [0, 1].
            weight_loss: A train batch to the loss that is minimised and the loss that is reported.
            alpha_step: Given a train and a validation batch, changes the alphas; None leaves them.
            amend: Adds to the averaged gradients of the weights; see :func:`search.training.update`.

        Returns:
            The mean reported loss, over all processes.
        """
        space, fabric, budget = self.context.space, self.context.fabric, self.context.budget
        weights = list(self.network.parameters())
        for group in self.weight_optimiser.param_groups:
            group["lr"] = self.context.learning_rate(progress)
        watch = SignWatch(self.network)
        total, count = 0.0, 0
        for train, validation in paired_batches(self.context, epoch):
            if alpha_step is not None:
                with batch_statistics(self.network), self.context.float32():
                    alpha_step(train, validation)
                budget.images_seen += len(validation[1]) * fabric.world_size
            self.weight_optimiser.zero_grad(set_to_none=True)
            loss, reported = weight_loss(train)
            # Gradients of the weights alone: those of the alphas belong to the validation half.
            fabric.backward(loss, inputs=weights)
            update(fabric, self.weight_optimiser, weights, space.optimiser.clip, amend)
            total, count = total + reported.item() * len(train[1]), count + len(train[1])
            budget.images_seen += len(train[1]) * fabric.world_size
        budget.epochs += 1
        self.flips = watch.flips()
        self.flip_shares += [] if self.flips.share is None else [self.flips.share]
        total, count = reduce_sum(fabric, torch.tensor([total, count], dtype=torch.float64)).tolist()
        return total / max(count, 1)

    def alpha_update(self, gradients: Iterable[Tensor]) -> None:
        """One step of the alphas' optimiser along gradients of a loss, averaged over all processes."""
        for parameter, gradient in zip(self.architecture.parameters(), gradients, strict=True):
            parameter.grad = gradient.detach()
        average_gradients(self.context.fabric, self.architecture.parameters())
        self.alpha_optimiser.step()

    def accuracy(self) -> float:
        """Accuracy of the mixture on the validation half, in [0, 1]."""
        return self.context.evaluate(self.network, self.predict).accuracy

    def settled(self) -> Settled:
        """What the genotype is kept by: mixing weights, times those of the edges where they have any, without ties."""
        scores = mixing_weights(self.alpha.detach().double().cpu())
        if self.architecture.edges is not None:
            factors = edge_weights(self.architecture.edges.detach().double().cpu(), self.space)
            scores = scores * factors[..., None]
        return settle(scores[0].tolist(), scores[-1].tolist(), self.context.seed, space=self.space)

    def genotype(self, name: str) -> Genotype:
        """The genotype of the present alphas (and edge weights)."""
        found = self.settled()
        return derive(
            found.normal,
            found.reduce,
            name=f"{name}-s{self.context.seed}",
            source=f"{name} search, seed {self.context.seed}",
            space=self.space,
        )

    def metrics(self) -> dict[str, float | None]:
        """Metrics of the search that any method with alphas has."""
        return {
            "tie_share": self.settled().share,
            "sign_flip_share": mean_share(self.flip_shares),
            "entropy_drop": math.log(len(self.space.operations)) - entropy(self.alpha),
        }

    def diagnose(self) -> dict[str, Any]:
        """Columns of history.csv: signs, and the alphas against those at the call before (at first, the start)."""
        alpha = self.alpha
        row = diagnose_alpha(alpha, self.diagnosed, self.genotype("present"))
        self.diagnosed = alpha.detach().clone()
        return {"sign_flips": self.flips.changed, "sign_flip_share": self.flips.share, **row}

    def state_dict(self) -> dict[str, Any]:
        """Weights, alphas, those last diagnosed, both optimisers, and the shares of signs that changed."""
        return {
            "flip_shares": self.flip_shares,
            "diagnosed": self.diagnosed,
            "network": self.network.state_dict(),
            "architecture": self.architecture.state_dict(),
            "weight_optimiser": self.weight_optimiser.state_dict(),
            "alpha_optimiser": self.alpha_optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self.diagnosed = state["diagnosed"].to(self.diagnosed)
        self.flip_shares = state["flip_shares"]
        self.network.load_state_dict(state["network"])
        self.architecture.load_state_dict(state["architecture"])
        self.weight_optimiser.load_state_dict(state["weight_optimiser"])
        self.alpha_optimiser.load_state_dict(state["alpha_optimiser"])


class DifferentiableSearch(Strategy):
    """One mixed supernet, its weights trained by cross entropy; a step is an epoch over the train half.

    Args:
        context: What the method works with.
        learner: The supernet and its alphas.
        epochs: Length of the search.
        warm_up: First epochs, in which the alphas rest.
    """

    name: ClassVar[str]

    def __init__(self, context: Context, learner: Learner, epochs: int, warm_up: int) -> None:
        super().__init__(context)
        self.learner, self.epochs, self.warm_up = learner, epochs, warm_up
        self.validation_accuracy = 0.0

    @property
    def total_steps(self) -> int:
        """One step an epoch."""
        return self.epochs

    @abstractmethod
    def alpha_step(self, train: Batch, validation: Batch) -> None:
        """Change the alphas after seeing one batch of each half."""

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Mean cross entropy of the mixture on a batch."""
        return exact.cross_entropy(self.learner.predict(batch[0]), batch[1])

    def _weight_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = self.cross_entropy(batch)
        return loss, loss.detach()

    def step(self, index: int) -> list[dict[str, Any]]:
        """One epoch of alternating alpha and weight steps, then the mixture's validation accuracy."""
        alpha_step = self.alpha_step if index >= self.warm_up else None
        loss = self.learner.train_epoch(index, index / self.epochs, self._weight_loss, alpha_step)
        self.validation_accuracy = self.learner.accuracy()
        return [
            {
                "step": index,
                "epoch": self.context.budget.epochs,
                "loss_child": loss,
                "accuracy_child": self.validation_accuracy,
                "images_seen": self.context.budget.images_seen,
                **self.learner.diagnose(),
            }
        ]

    def state_dict(self) -> dict[str, Any]:
        """The learner's state and the last accuracy."""
        return {"learner": self.learner.state_dict(), "validation_accuracy": self.validation_accuracy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self.learner.load_state_dict(state["learner"])
        self.validation_accuracy = state["validation_accuracy"]

    def result(self) -> SearchResult:
        """The genotype of the alphas; the accuracy is the mixed supernet's, after its last epoch."""
        return SearchResult(
            self.learner.genotype(self.name),
            self.validation_accuracy,
            {"alphas.csv": alpha_table(self.learner.architecture)},
            self.learner.metrics(),
        )
