from __future__ import annotations

from typing import Any

import pytest
import torch

from search.errors import InputError
from search.strategies.differentiable import paired_batches
from search.strategies.pc_darts import PcDarts, PcDartsSettings
from tests.search.test_darts import REAL, context, finish, through_a_file

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "warm_up": 1,
    "partial": 2,
    "alpha_learning_rate": 0.03,
    "alpha_weight_decay": 1e-3,
}


def pc_darts(seed: int = 0, settings: dict[str, Any] | None = None, **space: Any) -> PcDarts:
    return PcDarts(context(seed, **space), PcDartsSettings(**(SETTINGS | (settings or {}))))


def test_supernet_has_the_published_number_of_parameters() -> None:
    """299,578 at C = 16, 8 cells, 10 classes, K = 4: PC-DARTS's supernet, from running its published module."""
    strategy = pc_darts(
        settings={"partial": 4}, channels=16, cells=8, classes=10, train=40, validation=40, **REAL
    )
    assert sum(p.numel() for p in strategy.learner.network.parameters()) == 299_578


def test_alphas_rest_while_warming_up() -> None:
    strategy = pc_darts()
    before = [p.detach().clone() for p in strategy.learner.architecture.parameters()]
    rows = strategy.step(0)
    after = list(strategy.learner.architecture.parameters())
    assert len(before) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert rows[0]["images_seen"] == 16
    rows = strategy.step(1)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert rows[0]["images_seen"] == 16 + 32


def test_edges_enter_the_network() -> None:
    """The output depends on the edge parameters only through their softmax into each node."""
    strategy = pc_darts(**REAL)
    (x, _), _ = next(iter(paired_batches(strategy.context, 0)))
    edges = strategy.learner.architecture.edges
    assert edges is not None
    with torch.no_grad():
        first = strategy.learner.predict(x)
        edges += 5.0
        torch.testing.assert_close(strategy.learner.predict(x), first, rtol=1e-4, atol=1e-4)
        edges[:, 0] += 3.0
        assert (strategy.learner.predict(x) - first).abs().max() > 1e-2


def test_edge_weights_decide_which_edges_are_kept() -> None:
    strategy = pc_darts()
    architecture = strategy.learner.architecture
    assert architecture.edges is not None
    with torch.no_grad():
        architecture.alpha.zero_()
        architecture.alpha[..., 4] = 1.0
        architecture.edges.copy_(-0.01 * torch.arange(14.0).expand(2, 14))  # no ties: the first edges lead
    first = strategy.result().genotype
    assert [edge.source for edge in first.normal[3]] == [0, 1]
    with torch.no_grad():
        architecture.edges[0, 12] = 2.0  # the edge (3, 5) of the normal cell
    second = strategy.result().genotype
    assert [edge.source for edge in second.normal[3]] == [3, 0]
    assert second.reduce == first.reduce


def test_table_has_the_edge_weights() -> None:
    table = pc_darts().result().tables["alphas.csv"]
    assert sum(row["edge_weight"] for row in table) == pytest.approx(8 * 2 * 4)


def test_channels_that_cannot_be_divided_are_named() -> None:
    with pytest.raises(InputError, match="multiple of 3"):
        pc_darts(settings={"partial": 3})


def test_repeats_and_resumes_bit_for_bit() -> None:
    strategy = pc_darts()
    rows = strategy.step(0) + strategy.step(1)
    state, budget = through_a_file(strategy), vars(strategy.context.budget).copy()
    rest, result = finish(strategy, first=2)
    assert finish(pc_darts()) == (rows + rest, result)
    resumed = pc_darts()
    torch.manual_seed(99)
    resumed.load_state_dict(state)
    vars(resumed.context.budget).update(budget)
    assert finish(resumed, first=2) == (rest, result)
    assert pc_darts(seed=1).step(0) != rows[:1]
