from __future__ import annotations

import pytest

from search.genotype import EDGES, derive
from search.strategies.ties import best_of, settle

FLAT = [[0.5] * 8 for _ in EDGES]
DISTINCT = [[(13 * row + 5 * column) % 113 / 113 for column in range(8)] for row in range(len(EDGES))]


def genotype(normal, reduce, seed=0):  # type: ignore[no-untyped-def]
    found = settle(normal, reduce, seed)
    return derive(found.normal, found.reduce, name="", source=""), found


def test_without_ties_the_places_give_what_the_scores_give() -> None:
    found, settled = genotype(DISTINCT, DISTINCT[::-1])
    assert found == derive(DISTINCT, DISTINCT[::-1], name="", source="")
    assert settled.share == 0


def test_equal_scores_are_drawn_by_the_seed_and_all_counted() -> None:
    first, settled = genotype(FLAT, FLAT)
    assert (settled.tied_nodes, settled.nodes, settled.share) == (8, 8, 1.0)
    assert first == genotype(FLAT, FLAT)[0]
    assert len({genotype(FLAT, FLAT, seed)[0].hash for seed in range(5)}) == 5
    sources = [
        edge.source for seed in range(50) for node in genotype(FLAT, FLAT, seed)[0].normal for edge in node
    ]
    assert sum(source < 2 for source in sources) / len(sources) == pytest.approx(10.27 / 16, abs=0.06)


def test_only_ties_that_decide_count() -> None:
    """A tie between two kept edges, or below them, changes nothing; one across the border does."""
    row = {edge: place for place, edge in enumerate(EDGES)}
    lowest = float("-inf")

    def table(values: dict[int, float]) -> list[list[float]]:
        scores = [[lowest] * 4 + [0.1 + place / 100] + [lowest] * 3 for place in range(len(EDGES))]
        for source, value in values.items():
            scores[row[(source, 4)]][4] = value
        return scores

    free = table({})
    for values, tied in (
        ({0: 0.9, 1: 0.9, 2: 0.3, 3: 0.2}, 0),
        ({0: 0.9, 1: 0.8, 2: 0.3, 3: 0.3}, 0),
        ({0: 0.9, 1: 0.8, 2: 0.8, 3: 0.1}, 1),
        ({0: 0.9, 1: 0.8, 2: 0.8 + 1e-15, 3: 0.1}, 1),
    ):
        assert settle(table(values), free, 0).tied_nodes == tied
    best = table({0: 0.9, 1: 0.8, 2: 0.3, 3: 0.2})
    best[row[(0, 4)]][5] = 0.9
    assert settle(best, free, 0).tied_nodes == 1
    assert settle(best, free, 0, "all").tied_nodes == 1


def test_what_was_dropped_stays_dropped() -> None:
    scores = [[float("-inf")] * 7 + [0.3] for _ in EDGES]
    settled = settle(scores, scores, 0)
    assert all(row[:7] == [float("-inf")] * 7 and row[7] >= 0 for row in settled.normal)


def test_best_of_equals_is_drawn() -> None:
    assert best_of([0.1, 0.4, 0.3], 0, "x") == (1, 1)
    found = {best_of([0.4, 0.1, 0.4, 0.4 + 1e-16], seed, "x") for seed in range(20)}
    assert found == {(0, 3), (2, 3), (3, 3)}
