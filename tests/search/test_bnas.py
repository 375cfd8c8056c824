from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest
import torch

from search.binary import quant_convs
from search.genotype import EDGES, OPERATIONS
from search.operations import Zero
from search.strategies.bnas import Bnas, BnasSettings, remembered, sampled
from search.supernet import Architecture
from tests.search import tiny
from tests.search.test_darts import context, finish

HALF = len(EDGES)


class Recorded(Bnas):
    """Accuracies of drawn networks from a table, so that only the mixture is trained."""

    def _train_and_evaluate(self, architecture: Architecture, index: int) -> tuple[float, float, int]:
        generator = torch.Generator().manual_seed(index)
        return 0.0, float(torch.rand((), generator=generator)), 64


def bnas(kind: type[Bnas] = Recorded, **settings: Any) -> Bnas:
    return kind(context(), BnasSettings(**(tiny.METHODS["bnas"] | settings)))


@pytest.fixture(scope="module")
def searched() -> tuple[list[dict[str, Any]], Any, Bnas]:
    strategy = bnas(rounds=2)
    rows, result = finish(strategy)
    return rows, result, strategy


def test_memory_by_hand() -> None:
    """s <- s/2 + q for the sampled, s/2 + (max q + mean q)/2 for the others, q = softmax of the mean accuracies."""
    found = remembered({1: 1.0, 3: 0.4, 6: 0.2}, {3: 0.5, 6: 0.3})
    total = math.exp(0.5) + math.exp(0.3)
    q3, q6 = math.exp(0.5) / total, math.exp(0.3) / total
    assert found == pytest.approx({1: 0.5 + (q3 + 0.5) / 2, 3: 0.2 + q3, 6: 0.1 + q6})


def test_half_of_the_operations_are_at_risk() -> None:
    assert [sampled(k) for k in range(8, 1, -1)] == [4, 4, 3, 3, 2, 2, 1]


def test_alphas_and_draws_take_turns(searched: Any) -> None:
    rows = searched[0]
    expected = [(8, "mixture")]  # the warm-up
    for k in range(8, 1, -1):
        expected += [(k, "mixture")] + [(k, "sample")] * 2 * sampled(k)
    assert [(row["k"], row["phase"]) for row in rows] == expected
    assert searched[2].total_steps == len(rows)
    assert rows[0]["tau"] == pytest.approx(1.0)  # alphas rest in the warm-up
    for row in rows:
        assert (row["entropy"] is not None) == (row["phase"] == "mixture")
        if row["phase"] == "mixture":
            assert row["entropy"] <= math.log(row["k"]) + 1e-6
            assert row["sign_flips"] > 0


def test_what_is_dropped_can_be_recomputed_from_the_files(searched: Any) -> None:
    """From history.csv and rounds.csv: who was drawn, s, and the dropped operation of every edge."""
    rows, result, _ = searched
    memory = [dict.fromkeys(range(8), 0.0) for _ in range(2 * HALF)]
    for stage in result.tables["rounds.csv"]:
        draws = [row for row in rows if row["k"] == stage["k"] and row["phase"] == "sample"]
        dropped = stage["dropped_normal"] + stage["dropped_reduce"]
        for edge in range(2 * HALF):
            values: dict[int, list[float]] = {}
            for row in draws:
                values.setdefault(int((row["normal"] + row["reduce"])[edge]), []).append(
                    row["accuracy_child"]
                )
            assert len(values) == sampled(stage["k"]) and {len(v) for v in values.values()} == {2}
            assert values.keys() <= memory[edge].keys()
            memory[edge] = remembered(memory[edge], {op: fmean(found) for op, found in values.items()})
            worst = int(dropped[edge])
            assert memory[edge][worst] == pytest.approx(min(memory[edge].values()), abs=1e-9)
            del memory[edge][worst]


def test_the_weakest_alphas_are_sampled() -> None:
    strategy = bnas()
    order = torch.stack(
        [torch.randperm(8, generator=torch.Generator().manual_seed(e)) for e in range(2 * HALF)]
    )
    with torch.no_grad():
        strategy.learner.architecture.alpha.copy_(order.view(2, HALF, 8))
    strategy._open_sampling(8)
    for ranks, candidates in zip(order.tolist(), strategy.candidates, strict=True):
        assert sorted(ranks[op] for op in candidates) == [0, 1, 2, 3]


def test_dropped_operations_leave_the_mixture_and_the_network(searched: Any) -> None:
    _, result, strategy = searched
    weights = torch.softmax(strategy.learner.alpha, -1).flatten(0, 1)
    for row, operations in zip(weights.tolist(), strategy.remaining, strict=True):
        assert [op for op, weight in enumerate(row) if weight > 0] == operations
    for cell in strategy.learner.network.cells:
        remaining = strategy.remaining[HALF:] if cell.plan.reduction else strategy.remaining[:HALF]
        for edge, operations in zip(cell.edges, remaining, strict=True):
            kept = [op for op in range(8) if not isinstance(edge.operations[op], Zero)]
            assert kept == [op for op in operations if OPERATIONS[op] != "none"]
    assert result.metrics["tie_share"] == 0
    assert result.metrics["entropy_drop"] > 0
    assert result.metrics["sign_flip_share"] > 0


def test_dropping_changes_no_output_of_the_others() -> None:
    """An operation of weight 0, computed, and one that is gone give the same logits."""
    strategy = bnas()
    x = torch.randn(2, 3, 8, 8)
    strategy.remaining = [[op for op in range(8) if op != edge % 8] for edge in range(2 * HALF)]
    masked = strategy.learner
    mask = torch.zeros(2 * HALF, 8)
    for edge in range(2 * HALF):
        mask[edge, edge % 8] = float("-inf")
    masked.mask = mask.view(2, HALF, 8)
    before = masked.predict(x)
    strategy._prune()
    assert torch.equal(masked.mask, mask.view(2, HALF, 8))
    torch.testing.assert_close(masked.predict(x), before)
    assert len(list(quant_convs(masked.network))) < len(list(quant_convs(bnas().learner.network)))
