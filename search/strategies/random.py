"""Random search: n uniform genotypes, each evaluated alike, the best by the common validation protocol."""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from search.genotype import Cell, Edge, Genotype
from search.settings import Epochs, Settings
from search.space import INPUTS, PAPER, Space
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


def uniform_cell(generator: random.Random, space: Space) -> Cell:
    """Every node draws two different inputs, or reads all where the space keeps all, each with an operation."""
    return tuple(
        tuple(
            Edge(generator.choice(space.kept), source)
            for source in (sorted(generator.sample(range(node), 2)) if space.keep == "top2" else range(node))
        )
        for node in range(INPUTS, INPUTS + space.nodes)
    )


def random_genotype(seed: int, index: int, space: Space = PAPER) -> Genotype:
    """Genotype ``index`` of a seed, uniform over the architectures that the space's derivation can give."""
    generator = random.Random(f"genotype {seed} {index}")
    source = f"uniform draw {index} of random search, seed {seed}"
    normal = uniform_cell(generator, space)
    reduce = uniform_cell(generator, space) if space.reduction else normal
    return Genotype(f"random-s{seed}", source, normal, reduce, space)


class RandomSearch(ProposalSearch):
    """Evaluate n uniform genotypes."""

    name: ClassVar[str] = "random"

    def __init__(self, context: Context, settings: RandomSettings) -> None:
        super().__init__(context, settings.architectures, TrainedAccuracy(context, settings.epochs))

    def propose(self, found: list[Found]) -> Genotype:
        """The next draw, whatever the others gave."""
        return random_genotype(self.context.seed, len(found), self.context.space.searched)
