"""Regularised evolution (Real et al., AAAI 2019): tournaments in a population whose oldest member dies."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, model_validator

from search.genotype import Genotype
from search.strategies.base import Context
from search.strategies.evaluation import Found, ProposalSearch, TrainedAccuracy
from search.strategies.mutation import changed, mutation
from search.strategies.random import ProposalSettings, random_genotype


class RegularisedEvolutionSettings(ProposalSettings):
    """Settings of regularised evolution.

    Attributes:
        population: P: the first P architectures are uniform draws; later ones replace the oldest [paper: 100].
        sample: S: the parent is the most accurate of S members drawn from the population [paper: 25].
    """

    population: int = Field(ge=2, le=100_000)
    sample: int = Field(ge=1, le=100_000)

    @model_validator(mode="after")
    def _fits(self) -> RegularisedEvolutionSettings:
        if not self.sample <= self.population <= self.architectures:
            raise ValueError("sample <= population <= architectures is needed")
        return self


class RegularisedEvolution(ProposalSearch):
    """Mutate the best of a few; forget by age, not by accuracy, so that a lucky measurement does not live for ever."""

    name: ClassVar[str] = "regularised_evolution"

    def __init__(self, context: Context, settings: RegularisedEvolutionSettings) -> None:
        self.settings = settings
        super().__init__(context, settings.architectures, TrainedAccuracy(context, settings.epochs))

    def propose(self, found: list[Found]) -> Genotype:
        """A uniform draw while the population is filled; then a mutated winner of a tournament."""
        seed, index = self.context.seed, len(found)
        name = f"{self.name}-s{seed}"
        if index < self.settings.population:
            return replace(
                random_genotype(seed, index, self.context.space.searched),
                name=name,
                source=f"{name}, first population",
            )
        generator = random.Random(f"evolution {seed} {index}")
        members = generator.sample(found[-self.settings.population :], self.settings.sample)
        generator.shuffle(members)  # max takes the first of equals: a drawn one
        parent = max(members, key=lambda member: member.accuracy).genotype
        return changed(parent, mutation(parent, generator), name, f"{name}, architecture {index}")
