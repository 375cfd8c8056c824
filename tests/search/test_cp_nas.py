from __future__ import annotations

import math
from collections import Counter
from statistics import fmean

import pytest
import torch

from search.files import read_csv, write_csv
from search.genotype import EDGES, OPERATIONS
from search.run import SearchRun, run_search
from search.strategies.base import Context
from search.strategies.cp_nas import CpNas, CpNasSettings, draw_round, indicator_value, indicators
from search.training import set_up
from tests.search import tiny

HALF = len(EDGES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SearchRun:
    return run_search(
        set_up(tiny.COMPUTE, 0),
        "cp_nas",
        tiny.settings(cp_nas={**tiny.METHODS["cp_nas"], "rounds": 2}),
        0,
        tiny.images(),
        resume_root=tmp_path_factory.mktemp("resume"),
        data_hash="tiny",
        quiet=True,
    )


@pytest.mark.parametrize(
    ("child", "parent", "beta", "expected"),
    [
        (0.6, 0.8, 1.0, 0.8),
        (0.6, 0.8, 2.0, 1.0),
        (0.6, 0.8, 0.0, 0.6),
        (0.7, 0.5, 0.5, 0.6),
        (0.6, None, 3.0, 0.6),
    ],
)
def test_indicator_value_is_4_15(child: float, parent: float | None, beta: float, expected: float) -> None:
    assert indicator_value(child, parent, beta) == pytest.approx(expected)


def test_indicator_is_the_softmax_of_4_16() -> None:
    found = indicators({2: 0.1, 5: 0.4, 7: 0.2})
    total = sum(math.exp(z) for z in (0.1, 0.4, 0.2))
    assert found == pytest.approx(
        {2: math.exp(0.1) / total, 5: math.exp(0.4) / total, 7: math.exp(0.2) / total}
    )


@pytest.mark.parametrize("k", [8, 5, 2])
def test_sampling_without_replacement_covers_each_operation_once(k: int) -> None:
    remaining = [
        sorted(torch.randperm(8, generator=torch.Generator().manual_seed(e))[:k].tolist()) for e in range(28)
    ]
    drawn = draw_round(remaining, seed=3, k=k, t=1)
    assert len(drawn) == k
    for edge, operations in enumerate(remaining):
        seen = [(a.normal + a.reduce)[edge] for a in drawn]
        assert sorted(seen) == operations


def test_draws_depend_on_seed_and_round_only() -> None:
    remaining = [list(range(8))] * 28
    assert draw_round(remaining, 0, 8, 0) == draw_round(remaining, 0, 8, 0)
    assert draw_round(remaining, 0, 8, 0) != draw_round(remaining, 0, 8, 1)
    assert draw_round(remaining, 0, 8, 0) != draw_round(remaining, 1, 8, 0)


def test_history_has_35_t_draws_of_k_from_8_to_2(run: SearchRun) -> None:
    assert [row["k"] for row in run.history] == [k for k in range(8, 1, -1) for _ in range(2 * k)]
    assert run.budget.epochs == 2 * len(run.history)  # Child and Parent
    assert run.budget.images_seen == 2 * len(run.history) * 32


def test_every_indicator_can_be_recomputed_from_the_file(run: SearchRun, tmp_path) -> None:
    """From history.csv alone: z, the means of each stage, the dropped operation of every edge."""
    write_csv(tmp_path / "history.csv", run.history)
    rows = read_csv(tmp_path / "history.csv")
    stages = {int(row["k"]): row for row in run.result.tables["rounds.csv"]}
    alive = [set(range(8)) for _ in range(2 * HALF)]
    for k in range(8, 1, -1):
        stage = [row for row in rows if int(row["k"]) == k]
        for row in stage:
            child, parent = float(row["accuracy_child"]), float(row["accuracy_parent"])
            assert float(row["z"]) == 1.0 * (parent - child) + child
        dropped = stages[k]["dropped_normal"] + stages[k]["dropped_reduce"]
        for edge in range(2 * HALF):
            values: dict[int, list[float]] = {}
            for row in stage:
                values.setdefault(int((row["normal"] + row["reduce"])[edge]), []).append(float(row["z"]))
            assert values.keys() == alive[edge]
            assert {len(found) for found in values.values()} == {2}
            scores = indicators({op: fmean(found) for op, found in values.items()})
            assert scores[int(dropped[edge])] == min(scores.values())
            alive[edge].remove(int(dropped[edge]))
    survivors = (stages[2]["surviving_normal"] + "|" + stages[2]["surviving_reduce"]).split("|")
    assert [{int(op)} for op in survivors] == alive


def test_genotype_keeps_two_surviving_operations_a_node(run: SearchRun) -> None:
    last = run.result.tables["rounds.csv"][-1]
    survivors = dict(zip(EDGES, last["surviving_normal"].split("|"), strict=True))
    for node, edges in enumerate(run.result.genotype.normal, start=2):
        assert len(edges) == 2
        for edge in edges:
            survivor = OPERATIONS[int(survivors[(edge.source, node)])]
            assert survivor in (edge.operation, "none")


def test_an_edge_left_with_none_stands_behind_the_others() -> None:
    means = [{0: 0.9, 4: 0.8}] + [{3: 0.1, 4: 0.2}] * 13
    remaining = [[0]] + [[4]] * 13
    table = CpNas._table(means, remaining)
    assert table[0][4] < table[1][4]
    assert table[0][0] < table[1][4]
    assert table[1][3] == float("-inf")


def _context() -> Context:
    space = tiny.settings().space
    data = tiny.images()
    return Context(set_up(tiny.COMPUTE, 0), data, data, space, 0)


def test_shared_latent_weights_are_one_parameter() -> None:
    from search.binary import quant_convs

    values = tiny.METHODS["cp_nas"] | {"share_latent_weights": True}
    strategy = CpNas(_context(), CpNasSettings.model_validate(values))
    assert strategy.parent is not None
    pairs = list(zip(quant_convs(strategy.child), quant_convs(strategy.parent), strict=True))
    assert len(pairs) > 100
    assert all(a.weight is b.weight for (_, a), (_, b) in pairs)


def test_ties_are_broken_by_the_seed_and_recorded() -> None:
    def close(seed: int) -> tuple[list[list[int]], int]:
        context = _context()
        context.seed = seed
        strategy = CpNas(context, CpNasSettings.model_validate(tiny.METHODS["cp_nas"]))
        strategy.values = [dict.fromkeys(range(8), [0.5]) for _ in range(28)]
        strategy._drop_worst(8)
        return strategy.remaining, strategy.rounds[0]["ties"]

    first, ties = close(0)
    assert ties == 28
    assert first == close(0)[0]
    assert first != close(1)[0]
    assert Counter(len(ops) for ops in first) == {7: 28}
