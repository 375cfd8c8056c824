"""The protocol of all search methods, their common settings, and what they may use: data, network size, budget.

A method does its work in steps (usually one epoch each), so that the driver in :mod:`search.run` can report
progress, save a state after each step and go on from it bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from lightning_fabric import Fabric
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from search import exact, optimisers
from search.binary import Estimator
from search.data import Augmentation, Batches, Images
from search.errors import InputError
from search.genotype import Genotype
from search.network import NetworkConfig, Stem
from search.settings import Batch, Cells, Channels, LearningRate, Seed, Settings, Weight, WeightDecay
from search.space import Keep, Space, named
from search.style import BlockSettings, Form
from search.supernet import Supernet
from search.training import Evaluation, ModuleType, cosine, evaluate, prepare, reduce_sum, update


class OptimiserSettings(Settings):
    """How weights are trained.

    Attributes:
        name: ``sgd`` (with momentum) or ``adam``.
        learning_rate: At the start; a cosine over the whole search brings it to ``final_learning_rate``.
        weight_decay: L2 on all weights.
        clip: Largest norm of the gradient; 0 for no limit.
    """

    name: Literal["sgd", "adam"]
    learning_rate: LearningRate
    final_learning_rate: float = Field(ge=0, le=100)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: WeightDecay
    clip: Weight


class SupernetSettings(Settings):
    """What the batch norms of a supernet's cells are, whose weights all architectures share.

    Attributes:
        affine: Whose batch norms have weights: ``none`` (DARTS), ``child``, where they are the learned thresholds of
            the signs behind them, or ``all``. docs/method.md has the measurement.
        running_statistics: Whether evaluation uses running statistics, a mean over all architectures drawn
            before, instead of each batch's own.
    """

    affine: Literal["none", "child", "all"]
    running_statistics: bool


class SearchSpaceSettings(Settings):
    """What all methods of a profile share: space, size, split, recipe.

    Attributes:
        form: Form of the operations.
        block: What of a block is not settled by the form.
        supernet: Batch norms of supernets.
        binary: Search with 1-bit operations (the Child), or real-valued ones.
        channels, cells: Size of the supernet.
        train_images, validation_images: Sizes of the two halves, drawn class-balanced from the training set.
        split_seed: Decides the split; the same for all methods and seeds, so that they are compared on one split.
        edges: ``top2`` keeps two edges a node, ``all`` every edge.
        name: The search space, a name of :data:`search.space.SPACES`; ``paper`` is that of the papers.
    """

    name: str
    form: Form
    block: BlockSettings
    supernet: SupernetSettings
    binary: bool
    estimator: Estimator
    channels: Channels
    cells: Cells
    stem: Stem
    train_images: int = Field(gt=0, le=10**9)
    validation_images: int = Field(gt=0, le=10**9)
    split_seed: Seed
    batch_size: Batch
    augmentation: Augmentation
    optimiser: OptimiserSettings
    edges: Keep

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return named(value).name
        except InputError as error:
            raise ValueError(str(error)) from None

    @property
    def searched(self) -> Space:
        """The space with the edges that the settings keep."""
        return replace(named(self.name), keep=self.edges)

    def network_config(self, classes: int, binary: bool | None = None) -> NetworkConfig:
        """The supernet's configuration; ``binary`` overrides the precision (the Parent is the real twin)."""
        chosen = self.binary if binary is None else binary
        style = self.block.style(self.form, chosen, self.estimator)
        return NetworkConfig(self.channels, self.cells, classes, self.stem, style)


@dataclass
class Budget:
    """What a method has used: the currency in which methods are compared.

    Attributes:
        epochs: Epochs of training over the train half, of any network.
        images_seen: Images that went through a training step.
        images_evaluated: Images that went through an evaluation.
    """

    epochs: int = 0
    images_seen: int = 0
    images_evaluated: int = 0


@dataclass
class Context:
    """What a method works with.

    Attributes:
        fabric: Device, precision, processes.
        train, validation: The two halves; every process holds them whole and takes its slice of each batch.
        space: Common settings.
        seed: Decides everything random of this run.
        budget: Counted by :meth:`train_epoch` and :meth:`evaluate`.
        whole_precision: Whether :meth:`autocast` leaves everything in float32, set by :meth:`float32`.
    """

    fabric: Fabric
    train: Images
    validation: Images
    space: SearchSpaceSettings
    seed: int
    budget: Budget = field(default_factory=Budget)
    whole_precision: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Within, operations run in the precision of the settings."""
        return nullcontext() if self.whole_precision else self.fabric.autocast()

    @contextmanager
    def float32(self) -> Iterator[None]:
        """Within, :meth:`autocast` changes nothing."""
        before, self.whole_precision = self.whole_precision, True
        try:
            yield
        finally:
            self.whole_precision = before

    def batches(self, images: Images, *, training: bool, seed_offset: int = 0) -> Batches:
        """Batches of a half: augmented and shuffled for training, as they are for evaluation."""
        return Batches(
            images,
            self.space.batch_size,
            seed=self.seed + seed_offset,
            augmentation=self.space.augmentation if training else None,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            device=self.fabric.device,
        )

    def place(self, module: ModuleType) -> ModuleType:
        """Make a network ready for training; see :func:`search.training.prepare`."""
        return prepare(self.fabric, module)

    def supernet(self, *, binary: bool | None = None, partial: int = 1) -> Supernet:
        """A supernet of the space, of the other precision where ``binary`` says so."""
        config, norms = self.space.network_config(self.train.classes, binary), self.space.supernet
        affine = norms.affine == "all" or (norms.affine == "child" and config.style.binary)
        return Supernet(config, affine, partial, norms.running_statistics, self.space.searched)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser of the settings."""
        chosen = self.space.optimiser
        if chosen.name == "sgd":
            return optimisers.SGD(
                parameters, chosen.learning_rate, momentum=chosen.momentum, weight_decay=chosen.weight_decay
            )
        return optimisers.Adam(parameters, chosen.learning_rate, weight_decay=chosen.weight_decay)

    def learning_rate(self, progress: float) -> float:
        """Cosine from the start's to the final learning rate; ``progress`` in [0, 1]."""
        chosen = self.space.optimiser
        return cosine(progress, chosen.learning_rate, chosen.final_learning_rate)

    def train_epoch(
        self,
        predict: Callable[[Tensor], Tensor],
        parameters: list[nn.Parameter],
        optimiser: Optimizer,
        epoch: int,
        progress: float,
        penalty: Callable[[], Tensor] | None = None,
    ) -> float:
        """One epoch of cross entropy over the train half.

        Args:
            predict: Images (B, 3, H, W) to logits.
            parameters: Those that ``predict`` uses; their gradients are clipped and averaged.
            optimiser: Holds at least ``parameters``; one without a gradient is left alone.
            epoch: Decides the order and augmentation of the images.
            progress: Position in the learning-rate schedule, in [0, 1].
            penalty: A further loss of the weights alone, the same for every batch and process.

        Returns:
            The mean cross entropy.
        """
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate(progress)
        total, count = 0.0, 0
        for x, y in self.batches(self.train, training=True).epoch(epoch):
            optimiser.zero_grad(set_to_none=True)
            with self.autocast():
                loss = exact.cross_entropy(predict(x), y)
            self.fabric.backward(loss if penalty is None else loss + penalty())
            update(self.fabric, optimiser, parameters, self.space.optimiser.clip)
            total, count = total + loss.item() * len(y), count + len(y)
            self.budget.images_seen += len(y) * self.fabric.world_size
        self.budget.epochs += 1
        sums = reduce_sum(self.fabric, torch.tensor([total, count], dtype=torch.float64))
        return float(sums[0] / sums[1])

    def evaluate(self, model: nn.Module, predict: Callable[[Tensor], Tensor]) -> Evaluation:
        """Accuracy on the validation half, ``model`` in evaluation mode."""
        result = evaluate(self.fabric, model, predict, self.batches(self.validation, training=False).epoch(0))
        self.budget.images_evaluated += result.images
        return result


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        genotype: The architecture.
        validation_accuracy: The validation accuracy the method itself saw last for its choice, in [0, 1].
        tables: Further tables by file name (such as ``rounds.csv``).
        metrics: What the method says of its own working, by name; None where it does not apply. All methods use
            these names with these meanings:

            - ``tie_share``: share of the choices that make the genotype, in [0, 1], that equal scores left to a
              seeded draw (of its 8 nodes; of the one choice between whole architectures);
            - ``sign_flip_share``: share of the trained 1-bit weights that changed sign in an epoch, mean over the
              epochs; 0 is a Child that is frozen;
            - ``signal_share``, ``effect_share``: 1 - noise / observed variance of the operations' means, with
              the noise of the validation half's size and with that between draws of one operation; see
              :class:`search.strategies.signal.Signal`;
            - ``entropy_drop``: how far the mean entropy of an edge's mixing weights fell from ln 8, in nats;
            - ``tangent_share``, ``reconstruction_share``: norm of the term over the norm of that of G, mean over
              the Child's steps: in alphahat, and in the 1-bit weights (DCP-NAS);
            - ``backtrack_share``: norm of the backtracking over that of the descent, in the alphas (DCP-NAS);
            - ``selection_change_share``: share of an epoch's operations whose selection for backtracking
              differs from the epoch before; ``psi_smallest``, ``psi_largest``: psi's range (DCP-NAS);
            - ``curvature_cosine``: cosine of the products of G's Hessian with one direction, exact and
              Gauss-Newton, on the 1-bit Child, mean over the rounds (DCP-NAS).
    """

    genotype: Genotype
    validation_accuracy: float
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)


class Strategy(ABC):
    """A search method.

    Attributes:
        name: What the method is called in params.yaml and in the tables.
    """

    name: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Number of calls of :meth:`step` until the search is finished."""

    @abstractmethod
    def step(self, index: int) -> list[dict[str, Any]]:
        """Do step ``index`` (0, 1, ...) and give the rows it adds to ``history.csv``: no times, so that they repeat."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""

    @abstractmethod
    def result(self) -> SearchResult:
        """The outcome, after the last step."""
