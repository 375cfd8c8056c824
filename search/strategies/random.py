"""Random search: n uniform genotypes, each evaluated alike, the best by the common validation protocol."""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from search.genotype import INPUTS, NODES, OPERATIONS, Cell, Edge, Genotype
from search.settings import Epochs, Settings
from search.strategies.base import Context
from search.strategies.evaluation import Found, ProposalSearch, TrainedAccuracy


class ProposalSettings(Settings):
    """How many architectures are asked for, and how long each is trained.

    Attributes:
        architectures: n, how many genotypes are trained; more than one.
        epochs: Epochs of training of each, from its own initialisation.
    """

    architectures: int = Field(ge=2, le=100_000)
    epochs: Epochs


class RandomSettings(ProposalSettings):
    """Settings of random search: no more than those of all methods that ask for whole architectures."""


CANDIDATES = tuple(name for name in OPERATIONS if name != "none")
"""Operations that an architecture can have."""


def uniform_cell(generator: random.Random) -> Cell:
    """Every node draws two different inputs and for each an operation but ``none``."""
    return tuple(
        tuple(
            Edge(generator.choice(CANDIDATES), source) for source in sorted(generator.sample(range(node), 2))
        )
        for node in range(INPUTS, INPUTS + NODES)
    )


def random_genotype(seed: int, index: int) -> Genotype:
    """Genotype ``index`` of a seed, uniform over all architectures with two inputs a node."""
    generator = random.Random(f"genotype {seed} {index}")
    source = f"uniform draw {index} of random search, seed {seed}"
    return Genotype(f"random-s{seed}", source, uniform_cell(generator), uniform_cell(generator))


class RandomSearch(ProposalSearch):
    """Evaluate n uniform genotypes."""

    name: ClassVar[str] = "random"

    def __init__(self, context: Context, settings: RandomSettings) -> None:
        super().__init__(context, settings.architectures, TrainedAccuracy(context, settings.epochs))

    def propose(self, found: list[Found]) -> Genotype:
        """The next draw, whatever the others gave."""
        return random_genotype(self.context.seed, len(found))
