"""Random search: n uniform genotypes, each trained alike, the best by the common validation protocol."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from pydantic import Field

from search.genotype import INPUTS, NODES, OPERATIONS, Cell, Edge, Genotype
from search.network import Network
from search.settings import Epochs, Settings
from search.strategies.base import Context, SearchResult, Strategy
from search.training import rng_state, seed_all, set_rng_state


class RandomSettings(Settings):
    """Settings of random search.

    Attributes:
        architectures: n, how many genotypes are drawn and trained; more than one.
        epochs: Epochs of training of each, from its own initialisation.
    """

    architectures: int = Field(ge=2, le=100_000)
    epochs: Epochs


def random_genotype(seed: int, index: int) -> Genotype:
    """Genotype ``index`` of a seed: every node draws two different inputs and for each an operation but ``none``."""
    generator = random.Random(f"genotype {seed} {index}")
    operations = [name for name in OPERATIONS if name != "none"]

    def cell() -> Cell:
        return tuple(
            tuple(
                Edge(generator.choice(operations), source)
                for source in sorted(generator.sample(range(node), 2))
            )
            for node in range(INPUTS, INPUTS + NODES)
        )

    return Genotype(f"random-s{seed}", f"uniform draw {index} of random search, seed {seed}", cell(), cell())


class RandomSearch(Strategy):
    """Train n uniform genotypes one after the other; a step is one epoch of one of them."""

    name: ClassVar[str] = "random"

    def __init__(self, context: Context, settings: RandomSettings) -> None:
        super().__init__(context)
        self.settings = settings
        self.accuracies: list[float] = []
        self._start(0)

    @property
    def total_steps(self) -> int:
        """n genotypes times their epochs."""
        return self.settings.architectures * self.settings.epochs

    def _start(self, index: int) -> None:
        self.index = index
        self.genotype = random_genotype(self.context.seed, index)
        state = rng_state()
        seed_all(self.context.seed * 1000 + index)
        config = self.context.space.network_config(self.context.train.classes)
        self.network = self.context.place(Network(self.genotype, config))
        set_rng_state(state)
        self.optimiser = self.context.optimiser(self.network.parameters())

    def step(self, index: int) -> list[dict[str, Any]]:
        """One epoch of the present genotype; after its last epoch its validation accuracy counts."""
        which, epoch = divmod(index, self.settings.epochs)
        if which != self.index:
            self._start(which)
        loss = self.context.train_epoch(
            self.network, list(self.network.parameters()), self.optimiser, index, epoch / self.settings.epochs
        )
        accuracy = self.context.evaluate(self.network, self.network).accuracy
        if epoch == self.settings.epochs - 1:
            self.accuracies.append(accuracy)
        return [
            {
                "step": index,
                "architecture": which,
                "epoch": self.context.budget.epochs,
                "accuracy_child": accuracy,
                "loss_child": loss,
                "images_seen": self.context.budget.images_seen,
                "genotype": self.genotype.hash,
            }
        ]

    def state_dict(self) -> dict[str, Any]:
        """The present network, its optimiser and the accuracies so far."""
        return {
            "index": self.index,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "accuracies": self.accuracies,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self._start(state["index"])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.accuracies = state["accuracies"]

    def result(self) -> SearchResult:
        """The genotype with the best validation accuracy; of equals the first."""
        best = max(range(len(self.accuracies)), key=self.accuracies.__getitem__)
        table = [
            {
                "architecture": index,
                "accuracy": accuracy,
                "genotype": random_genotype(self.context.seed, index).hash,
            }
            for index, accuracy in enumerate(self.accuracies)
        ]
        return SearchResult(
            random_genotype(self.context.seed, best), self.accuracies[best], {"architectures.csv": table}
        )
