"""Local search (White et al., UAI 2021; Den Ottelander et al. 2021): go to a neighbour that is better, else restart."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import ClassVar

from search.genotype import Genotype
from search.strategies.base import Context
from search.strategies.evaluation import Found, ProposalSearch, TrainedAccuracy
from search.strategies.mutation import changed, input_changes, operation_changes
from search.strategies.random import ProposalSettings, random_genotype


class LocalSearchSettings(ProposalSettings):
    """Settings of local search: no more than those of all methods that ask for whole architectures."""


class LocalSearch(ProposalSearch):
    """First improvement: neighbours are asked in a drawn order, and the first better one is where it goes on.

    A neighbour differs in one operation or one input of one edge. Where no neighbour is better, the search starts
    again from another uniform draw. No architecture is asked for twice.
    """

    name: ClassVar[str] = "local_search"

    def __init__(self, context: Context, settings: LocalSearchSettings) -> None:
        super().__init__(context, settings.architectures, TrainedAccuracy(context, settings.epochs))

    def propose(self, found: list[Found]) -> Genotype:
        """The next neighbour of where the search stands, or a new start where all of them were asked for."""
        seed, index = self.context.seed, len(found)
        name, source = f"{self.name}-s{seed}", f"architecture {index} of {self.name}, seed {seed}"
        if found:
            known = {one.genotype.hash for one in found}
            place = stand(found)
            for neighbour in neighbours(found[place].genotype, seed, place):
                if neighbour.hash not in known:
                    return replace(neighbour, name=name, source=source)
        return replace(random_genotype(seed, index, self.context.space.searched), name=name, source=source)


def stand(found: list[Found]) -> int:
    """Index of the architecture at which a search stands that saw ``found``: the walk, walked again.

    It moves to what is better, and to what is no neighbour, which is a new start.
    """
    place, near = 0, _hashes(found[0].genotype)
    for index, one in enumerate(found):
        if index and (one.accuracy > found[place].accuracy or one.genotype.hash not in near):
            place, near = index, _hashes(one.genotype)
    return place


def neighbours(genotype: Genotype, seed: int, place: int) -> list[Genotype]:
    """All architectures one change away, in the order that the seed and the place of the walk draw."""
    changes = [*operation_changes(genotype), *input_changes(genotype)]
    random.Random(f"neighbours {seed} {place}").shuffle(changes)
    return [changed(genotype, change, "", "") for change in changes]


def _hashes(genotype: Genotype) -> set[str]:
    return {neighbour.hash for neighbour in neighbours(genotype, 0, 0)}
