from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from search.genotype import Genotype
from search.strategies.evaluation import Evaluator, Found, Measured, ProposalSearch
from search.strategies.local_search import LocalSearch, LocalSearchSettings, neighbours, stand
from search.strategies.mutation import changed, input_changes, mutation, operation_changes
from search.strategies.random import random_genotype
from search.strategies.regularised_evolution import RegularisedEvolution, RegularisedEvolutionSettings
from tests.search.test_darts import context


class Table:
    """A tabular benchmark in small: the accuracy is the share of a wanted operation; nothing is trained."""

    steps = 1

    def start(self, genotype: Genotype, index: int) -> None:
        self.genotype = genotype

    def advance(self, step: int, overall: int) -> Measured:
        return Measured(worth(self.genotype), None, None)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def worth(genotype: Genotype) -> float:
    edges = [edge for cell in (genotype.normal, genotype.reduce) for node in cell for edge in node]
    return sum(edge.operation == "sep_conv_3x3" for edge in edges) / len(edges)


def ask(strategy: ProposalSearch) -> ProposalSearch:
    """Run a search on the table."""
    evaluator: Evaluator = Table()
    strategy.evaluator, strategy.started = evaluator, False
    for index in range(strategy.total_steps):
        strategy.step(index)
    return strategy


def evolution(population: int = 10, sample: int = 5, architectures: int = 120) -> RegularisedEvolution:
    return RegularisedEvolution(
        context(),
        RegularisedEvolutionSettings(
            architectures=architectures, epochs=1, population=population, sample=sample
        ),
    )


def local(architectures: int = 120) -> LocalSearch:
    return LocalSearch(context(), LocalSearchSettings(architectures=architectures, epochs=1))


def difference(first: Genotype, second: Genotype) -> int:
    """Number of edges that only one of the two has."""
    pairs = [
        (a, b)
        for cell in ("normal", "reduce")
        for a, b in zip(getattr(first, cell), getattr(second, cell), strict=True)
    ]
    return sum(len(set(a) - set(b)) for a, b in pairs)


def test_changes_are_of_one_edge_and_cover_the_neighbourhood() -> None:
    start = random_genotype(0, 0)
    operations, inputs = list(operation_changes(start)), list(input_changes(start))
    assert len(operations) == 16 * 6
    assert len(inputs) == 2 * 2 * (0 + 1 + 2 + 3)
    for change in operations + inputs:
        found = changed(start, change, "", "")
        assert difference(start, found) == 1
        assert Genotype.from_dict(found.to_dict()) == found
    found = {changed(start, change, "", "").hash for change in operations + inputs}
    assert len(found) == len(operations) + len(inputs)
    drawn = [mutation(start, random.Random(seed)) for seed in range(300)]
    assert sum(change in inputs for change in drawn) / 300 == pytest.approx(0.5, abs=0.1)


def test_evolution_mutates_a_living_winner() -> None:
    strategy = ask(evolution())
    found = strategy.found
    assert [one.genotype.hash for one in found[:10]] == [random_genotype(0, i).hash for i in range(10)]
    for index in range(10, len(found)):
        living = found[index - 10 : index]
        parents = [one for one in living if difference(one.genotype, found[index].genotype) == 1]
        assert parents
        # the winner of 5 of 10 is among the 6 most accurate
        ranked = sorted((one.accuracy for one in living), reverse=True)
        assert max(one.accuracy for one in parents) >= ranked[5]


def test_evolution_and_local_search_find_more_than_chance() -> None:
    best_random = max(worth(random_genotype(0, index)) for index in range(120))
    assert ask(evolution()).result().validation_accuracy > best_random + 0.1
    assert ask(local()).result().validation_accuracy > best_random + 0.1


def test_local_search_goes_to_the_first_better_neighbour() -> None:
    found = ask(local(40)).found
    place = 0
    assert len({one.genotype.hash for one in found}) == len(found)
    for index in range(1, len(found)):
        assert difference(found[place].genotype, found[index].genotype) == 1
        if found[index].accuracy > found[place].accuracy:
            place = index
        assert stand(found[: index + 1]) == place
    assert found[place].accuracy == max(one.accuracy for one in found)


def test_local_search_starts_again_at_a_summit() -> None:
    strategy = local()
    summit = random_genotype(0, 0)
    found = [Found(summit, 1.0)] + [Found(one, 0.5) for one in neighbours(summit, 0, 0)]
    proposed = strategy.propose(found)
    assert proposed.hash == random_genotype(0, len(found)).hash
    assert stand([*found, Found(proposed, 0.1)]) == len(found)


def test_a_tie_for_the_best_is_drawn_and_said() -> None:
    strategy = local(4)
    strategy.found = [Found(random_genotype(0, index), 0.5) for index in range(4)]
    result = strategy.result()
    assert result.metrics["tie_share"] == 1.0
    strategy.found[2] = Found(random_genotype(0, 2), 0.6)
    result = strategy.result()
    assert (result.metrics["tie_share"], result.genotype.hash) == (0.0, random_genotype(0, 2).hash)


def test_a_sample_larger_than_the_population_is_refused() -> None:
    with pytest.raises(ValidationError, match="sample <= population <= architectures"):
        RegularisedEvolutionSettings(architectures=9, epochs=1, population=3, sample=4)
