from __future__ import annotations

import copy
import math
from collections import Counter
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from search.binary import quant_convs
from search.files import read_csv, write_csv
from search.flips import Flips
from search.genotype import EDGES, OPERATIONS
from search.losses import tie_loss
from search.run import SearchRun, run_search
from search.strategies.base import Context, SearchResult
from search.strategies.cp_nas import (
    PLAIN,
    CpNas,
    CpNasSettings,
    draw_round,
    edge_table,
    indicator_value,
    indicators,
)
from search.training import set_up
from tests.search import tiny

HALF = len(EDGES)
NOISE = 0.4
"""A share below this can be chance: above it no search on pure noise came, at T = 3."""


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
    margins: dict[int, list[float]] = {k: [] for k in stages}
    for k in range(8, 1, -1):
        stage = [row for row in rows if int(row["k"]) == k]
        for row in stage:
            child, parent = float(row["accuracy_child"]), float(row["accuracy_parent"])
            assert float(row["z"]) == 0.5 * (parent - child) + child
        dropped = stages[k]["dropped_normal"] + stages[k]["dropped_reduce"]
        for edge in range(2 * HALF):
            values: dict[int, list[float]] = {}
            for row in stage:
                values.setdefault(int((row["normal"] + row["reduce"])[edge]), []).append(float(row["z"]))
            assert values.keys() == alive[edge]
            assert {len(found) for found in values.values()} == {2}
            scores = indicators({op: fmean(found) for op, found in values.items()})
            assert scores[int(dropped[edge])] == pytest.approx(min(scores.values()), abs=1e-12)
            lowest, second = sorted(scores.values())[:2]
            margins[k].append(second - lowest)
            alive[edge].remove(int(dropped[edge]))
    survivors = (stages[2]["surviving_normal"] + "|" + stages[2]["surviving_reduce"]).split("|")
    assert [{int(op)} for op in survivors] == alive
    for k, found in margins.items():
        assert stages[k]["mean_margin"] == pytest.approx(fmean(found), abs=1e-12)


def test_the_accuracy_of_the_result_is_that_of_the_last_stage(run: SearchRun) -> None:
    last = [row["accuracy_child"] for row in run.history if row["k"] == 2]
    assert len(last) == 2 * 2
    assert run.result.validation_accuracy == fmean(last)


def test_edges_are_kept_by_all_draws_of_their_survivor(run: SearchRun) -> None:
    """From history.csv alone: the mean of z minus the round's mean z, over the whole search, decides every node."""
    centred: list[dict[int, list[float]]] = [{k: [] for k in range(8)} for _ in range(2 * HALF)]
    rounds: dict[tuple[int, int], list[dict]] = {}
    for row in run.history:
        rounds.setdefault((row["k"], row["round"]), []).append(row)
    for rows in rounds.values():
        average = fmean(row["z"] for row in rows)
        for row in rows:
            for edge, code in enumerate(row["normal"] + row["reduce"]):
                centred[edge][int(code)].append(row["z"] - average)
    last = run.result.tables["rounds.csv"][-1]
    survivors = (last["surviving_normal"] + "|" + last["surviving_reduce"]).split("|")
    for cell, first in (("normal", 0), ("reduce", HALF)):
        for node, edges in enumerate(getattr(run.result.genotype, cell), start=2):
            scores = {
                EDGES[row][0]: fmean(centred[first + row][int(survivors[first + row])])
                for row in range(HALF)
                if EDGES[row][1] == node and survivors[first + row] != "0"
            }
            assert all(len(found[int(op)]) == 7 * 2 for found, op in zip(centred, survivors, strict=True))
            kept = {edge.source for edge in edges}
            best = sorted(scores, key=lambda source: -scores[source])[:2]
            if len(scores) > 2 and round(scores[best[1]], 9) > round(sorted(scores.values())[-3], 9):
                assert kept == set(best)


def test_signal_is_measured_and_signs_change(run: SearchRun) -> None:
    """A share is missing exactly where no mean differs from another: every edge is a tie then."""
    rows = run.result.tables["rounds.csv"]
    for row in rows:
        for share in (row["signal_share"], row["effect_share"]):
            assert (share is None) == (row["ties"] == 2 * HALF)
            assert share is None or share < 1
    assert any(row["signal_share"] is not None for row in rows)
    metrics = run.result.metrics
    assert metrics["signal_share"] < 1 and metrics["effect_share"] < 1
    assert 0 <= metrics["tie_share"] <= 1
    assert all(row["sign_flips"] > 0 for row in run.history)
    assert 0 < metrics["sign_flip_share"] < 1


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
    table = edge_table(means, remaining)
    assert table[0][4] < table[1][4]
    assert table[0][0] < table[1][4]
    assert table[1][3] == float("-inf")


def test_an_edge_left_with_none_stands_behind_even_where_its_other_operation_was_the_best() -> None:
    """The whole range of the scores apart is not enough: it would tie the best with the worst."""
    means = [{0: 0.95, 4: 0.9}] + [{3: 0.8, 4: 0.1}] + [{3: 0.1, 4: 0.2}] * 12
    remaining = [[0]] + [[4]] * 13
    table = edge_table(means, remaining)
    assert table[0][4] < table[1][4] - 0.5
    means[0] = {0: 0.9, 4: 0.9}
    assert edge_table(means, remaining)[0][4] < 0.1 - 0.5


def _context() -> Context:
    space = tiny.settings().space
    data = tiny.images()
    return Context(set_up(tiny.COMPUTE, 0), data, data, space, 0)


class Simulated(CpNas):
    """The decisions of CP-NAS on given accuracies (Child, Parent) of every draw, without training."""

    accuracies: list[tuple[float, float]]

    def _train_and_evaluate(self, architecture, index):  # type: ignore[no-untyped-def]
        child, parent = self.accuracies[index]
        return {"child": 0.0, "parent": 0.0}, {"child": child, "parent": parent}, 128

    def search(self, accuracies: list[tuple[float, float]], seed: int = 0) -> SearchResult:
        """A whole search from its start, on the accuracies of its draws."""
        self.accuracies, self.context.seed = accuracies, seed
        if not hasattr(self, "first"):
            self.first = {key: copy.deepcopy(getattr(self, key)) for key in PLAIN}
        for key, value in self.first.items():
            setattr(self, key, copy.deepcopy(value))
        self.signals = []
        for index in range(self.total_steps):
            self.step(index)
        return self.result()


@pytest.fixture
def no_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated search trains nothing: looking for flipped signs would be most of its time."""
    watch = SimpleNamespace(flips=lambda: Flips(0, 1))
    monkeypatch.setattr("search.strategies.cp_nas.SignWatch", lambda *_, **__: watch)


def simulated(beta: float = 0.5, rounds: int = 3) -> Simulated:
    values = tiny.METHODS["cp_nas"] | {"beta_p": beta, "rounds": rounds}
    return Simulated(_context(), CpNasSettings.model_validate(values))


def noise(count: int, seed: int, images: int = 128) -> list[tuple[float, float]]:
    """Accuracies of ``images`` images of networks that are all equally good: 0.25 (Child) and 0.3 (Parent)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.distributions.Binomial(images, torch.tensor([0.25, 0.3]))
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return [tuple((draw.sample() / images).tolist()) for _ in range(count)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("beta", "child", "parent"), [(0.0, True, False), (0.5, True, True), (1.0, False, True)]
)
def test_who_decides(beta: float, child: bool, parent: bool) -> None:
    """At beta 0.5 a permutation of either network's accuracies changes the search; 0 and 1 are one network's alone."""
    strategy = simulated(beta)
    given = noise(strategy.total_steps, 0)
    turned = given[1:] + given[:1]

    def dropped(accuracies: list[tuple[float, float]]) -> list[str]:
        rounds = strategy.search(accuracies).tables["rounds.csv"]
        return [row["dropped_normal"] + row["dropped_reduce"] for row in rounds]

    base = dropped(given)
    assert (dropped([(c, p) for (c, _), (_, p) in zip(turned, given, strict=True)]) != base) == child
    assert (dropped([(c, p) for (c, _), (_, p) in zip(given, turned, strict=True)]) != base) == parent


@pytest.mark.slow
@pytest.mark.usefixtures("no_signs")
def test_noise_keeps_no_edge_by_its_place_and_ties_are_rare() -> None:
    """On accuracies that say nothing, edges from the cell inputs are kept as often as chance has it: 10.3 of 16."""
    strategy = simulated()
    shares, inputs, signals = [], [], []
    for seed in range(20):
        result = strategy.search(noise(strategy.total_steps, seed), seed)
        genotype = result.genotype
        inputs.append(
            sum(e.source < 2 for cell in (genotype.normal, genotype.reduce) for n in cell for e in n)
        )
        shares.append(result.metrics["tie_share"])
        signals.append(result.metrics)
    assert fmean(shares) < 0.05
    expected = 2 * sum(2 * 2 / node for node in range(2, 6))
    assert expected == pytest.approx(10.27, abs=0.01)
    assert fmean(inputs) == pytest.approx(expected, abs=1.0)
    # Binomial noise is what the observed variance is made of: no signal, in either measure, in any of the searches.
    for key in ("signal_share", "effect_share"):
        assert fmean(found[key] for found in signals) == pytest.approx(0, abs=0.15)
        assert max(found[key] for found in signals) < NOISE


@pytest.mark.usefixtures("no_signs")
def test_an_operation_that_matters_is_signal_and_survives() -> None:
    """Accuracy that depends on one edge's operation: its draws agree, and the best one is what is left."""
    strategy = simulated()
    generator = torch.Generator().manual_seed(0)

    class Truth(Simulated):
        def _train_and_evaluate(self, architecture, index):  # type: ignore[no-untyped-def]
            level = (
                0.3 + 0.05 * (architecture.normal[3] == 4) + 0.01 * float(torch.rand((), generator=generator))
            )
            return {"child": 0.0, "parent": 0.0}, {"child": level, "parent": level}, 128

    strategy.__class__ = Truth
    result = strategy.search([])
    last = result.tables["rounds.csv"][-1]
    assert last["surviving_normal"].split("|")[3] == "4"
    first = result.tables["rounds.csv"][0]
    assert first["effect_share"] > -1 and first["mean_margin"] > 0


def test_partial_channels_are_built() -> None:
    """`Child only` on a part of the channels: fewer weights in the operations, as the setting says."""
    values = tiny.METHODS["cp_nas"] | {"beta_p": 0.0, "parent": False}
    sizes = {
        partial: sum(
            p.numel()
            for cell in CpNas(
                _context(), CpNasSettings.model_validate(values | {"partial": partial})
            ).child.cells
            for edge in cell.edges
            for p in edge.parameters()
        )
        for partial in (1, 2)
    }
    assert sizes[2] < sizes[1] / 2


def test_tied_weights_of_the_child_go_to_the_parents() -> None:
    """With the loss of fig. 4.5 in the way, the Child's filters end nearer to the Parent's than without it."""
    distances = {}
    for weight in (0.0, 100.0):
        strategy = CpNas(
            _context(), CpNasSettings.model_validate(tiny.METHODS["cp_nas"] | {"tie_weight": weight})
        )
        torch.manual_seed(0)
        architecture = draw_round(strategy.remaining, 0, 8, 0)[0]
        start = [p.detach().clone() for p in strategy.child.parameters()]
        strategy._train_and_evaluate(architecture, 0)
        assert any(not torch.equal(p, q) for p, q in zip(strategy.child.parameters(), start, strict=True))
        pairs = [
            (ours, theirs.weight)
            for (_, ours), (_, theirs) in zip(
                quant_convs(strategy.child), quant_convs(strategy.parent), strict=True
            )
        ]
        distances[weight] = float(tie_loss(pairs).detach())
    assert distances[100.0] < distances[0.0]
    with pytest.raises(ValidationError, match="tie_weight needs a Parent"):
        CpNasSettings.model_validate(tiny.METHODS["cp_nas"] | {"tie_weight": 1.0, "parent": False})


def test_shared_latent_weights_are_one_parameter() -> None:
    values = tiny.METHODS["cp_nas"] | {"share_latent_weights": True}
    strategy = CpNas(_context(), CpNasSettings.model_validate(values))
    assert strategy.parent is not None
    pairs = list(zip(quant_convs(strategy.child), quant_convs(strategy.parent), strict=True))
    assert len(pairs) > 100
    assert all(a.weight is b.weight for (_, a), (_, b) in pairs)


@pytest.mark.usefixtures("no_signs")
def test_ties_are_broken_by_the_seed_and_recorded() -> None:
    """Accuracies that are all equal: every elimination on every edge is a tie, and there is no signal to speak of."""

    def rounds(seed: int) -> list[dict[str, Any]]:
        strategy = simulated(rounds=1)
        result = strategy.search([(0.5, 0.5)] * strategy.total_steps, seed)
        assert result.metrics["signal_share"] is None
        return result.tables["rounds.csv"]

    first = rounds(0)
    assert [row["ties"] for row in first] == [28] * 7
    assert all(row["signal_share"] is None for row in first)
    assert first == rounds(0)
    assert first[0]["surviving_normal"] != rounds(1)[0]["surviving_normal"]
    assert Counter(map(len, first[0]["surviving_normal"].split("|"))) == {7: 14}
