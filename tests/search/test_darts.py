from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from search.genotype import EDGES, OPERATIONS
from search.strategies.base import Context, Strategy
from search.strategies.darts import Darts, DartsSettings
from search.strategies.differentiable import (
    Batch,
    alpha_table,
    batch_statistics,
    edge_weights,
    paired_batches,
)
from search.training import set_up
from tests.search import tiny

SETTINGS: dict[str, Any] = {"epochs": 2, "order": 1, "alpha_learning_rate": 0.03, "alpha_weight_decay": 1e-3}
REAL = {"form": "darts", "binary": False}


def context(seed: int = 0, classes: int = 4, train: int = 16, validation: int = 16, **space: Any) -> Context:
    """Tiny space and images; ``space`` overrides its settings. Seeds everything, as the driver does."""
    chosen = tiny.settings().space.model_copy(update=space)
    images = tiny.images(train + validation, classes, size=8)
    halves = images.subset(torch.arange(train)), images.subset(torch.arange(train, train + validation))
    return Context(set_up(tiny.COMPUTE, seed), *halves, chosen, seed)


def darts(seed: int = 0, settings: dict[str, Any] | None = None, **space: Any) -> Darts:
    return Darts(context(seed, **space), DartsSettings(**(SETTINGS | (settings or {}))))


def finish(strategy: Strategy, first: int = 0) -> tuple[list[dict[str, Any]], Any]:
    """All steps from ``first`` on: their rows and the result."""
    rows = [row for index in range(first, strategy.total_steps) for row in strategy.step(index)]
    return rows, strategy.result()


def through_a_file(strategy: Strategy) -> Any:
    """The state as it comes back from a checkpoint."""
    stream = io.BytesIO()
    torch.save(strategy.state_dict(), stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def in_double(strategy: Darts) -> tuple[Batch, Batch]:
    """Turn the strategy to float64 and give one pair of batches."""
    strategy.learner.network.double()
    strategy.learner.architecture.double()
    (x, y), (x2, y2) = next(iter(paired_batches(strategy.context, 0)))
    return (x.double(), y), (x2.double(), y2)


def test_supernet_has_the_published_number_of_parameters() -> None:
    """1,930,618 at C = 16, 8 cells, 10 classes: DARTS's supernet, from running its published module."""
    strategy = darts(channels=16, cells=8, classes=10, train=40, validation=40, **REAL)
    assert sum(p.numel() for p in strategy.learner.network.parameters()) == 1_930_618


def test_derivation_is_that_of_the_published_module() -> None:
    """alpha[e, k] = sin(1.7 e + 0.9 k), run through DARTS's published derivation."""
    strategy = darts()
    table = torch.tensor([[math.sin(1.7 * e + 0.9 * k) for k in range(8)] for e in range(14)])
    strategy.learner.architecture.alpha.data[0] = table
    found = [[(edge.operation, edge.source) for edge in node] for node in strategy.result().genotype.normal]
    assert found == [
        [("avg_pool_3x3", 0), ("dil_conv_5x5", 1)],
        [("skip_connect", 1), ("sep_conv_5x5", 0)],
        [("sep_conv_3x3", 1), ("avg_pool_3x3", 2)],
        [("sep_conv_3x3", 1), ("avg_pool_3x3", 2)],
    ]


def test_both_orders_start_from_one_table_of_small_alphas() -> None:
    first, second = darts(), darts(settings={"order": 2})
    alpha = first.learner.architecture.alpha
    assert torch.equal(alpha, second.learner.architecture.alpha)
    assert alpha.shape == (2, 14, 8)
    assert 5e-4 < float(alpha.detach().std()) < 2e-3
    assert not torch.equal(alpha, darts(seed=1).learner.architecture.alpha)


def test_first_order_gradient_is_that_of_finite_differences() -> None:
    strategy = darts(**REAL)
    train, validation = in_double(strategy)
    alpha = strategy.learner.architecture.alpha
    direction = torch.randn(alpha.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with batch_statistics(strategy.learner.network):
        found = (strategy.alpha_gradient(train, validation) * direction).sum()
        sides = []
        for side in (1e-7, -1e-7):  # so small that no ReLU or pool changes its side between the two
            with torch.no_grad():
                alpha.add_(direction, alpha=side)
                sides.append(strategy.cross_entropy(validation))
                alpha.sub_(direction, alpha=side)
    torch.testing.assert_close(found, (sides[0] - sides[1]) / 2e-7, rtol=1e-5, atol=1e-7)


def unrolled_loss(strategy: Darts, train: Batch, validation: Batch, xi: float) -> Tensor:
    """L_val(w - xi dL_train/dw, alpha), the weights moved by hand."""
    weights = list(strategy.learner.network.parameters())
    gradients = torch.autograd.grad(strategy.cross_entropy(train), weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.sub_(gradient, alpha=xi)
        loss = strategy.cross_entropy(validation)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient, alpha=xi)
    return loss


def second_order(kind: str, xi: float = 0.05, radius: float = 0.01) -> tuple[Darts, Batch, Batch]:
    strategy = darts(settings={"order": 2, "second_order": kind, "difference_radius": radius}, **REAL)
    train, validation = in_double(strategy)
    strategy.learner.weight_optimiser.param_groups[0]["lr"] = xi
    return strategy, train, validation


def test_exact_second_order_is_the_derivative_of_the_unrolled_loss() -> None:
    strategy, train, validation = second_order("exact")
    alpha = strategy.learner.architecture.alpha
    direction = torch.randn(alpha.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with batch_statistics(strategy.learner.network):
        found = (strategy.alpha_gradient(train, validation) * direction).sum()
        sides = []
        for side in (1e-7, -1e-7):  # so small that no ReLU or pool changes its side between the two
            alpha.data.add_(direction, alpha=side)
            sides.append(unrolled_loss(strategy, train, validation, 0.05))
            alpha.data.sub_(direction, alpha=side)
    torch.testing.assert_close(found, (sides[0] - sides[1]) / 2e-7, rtol=1e-4, atol=1e-7)


def test_finite_difference_second_order_approaches_the_exact_one() -> None:
    """At a radius that crosses no kink of a ReLU; DARTS's 0.01 smooths over some."""
    exact, train, validation = second_order("exact")
    approximate, _, _ = second_order("finite_difference", radius=1e-6)
    first_order = darts(**REAL)
    in_double(first_order)
    gradients = []
    for strategy in (exact, approximate, first_order):
        with batch_statistics(strategy.learner.network):
            gradients.append(strategy.alpha_gradient(train, validation))
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()
    assert (gradients[2] - gradients[0]).norm() > 0.1 * gradients[0].norm()


def test_virtual_step_is_the_step_of_the_optimiser() -> None:
    """With momentum and weight decay, what order 2 looks ahead to is where SGD goes."""
    sgd = tiny.settings().space.optimiser.model_copy(
        update={"name": "sgd", "weight_decay": 0.01, "clip": 0.0}
    )
    strategy = darts(settings={"order": 2}, optimiser=sgd, **REAL)
    train, _ = in_double(strategy)
    network, optimiser = strategy.learner.network, strategy.learner.weight_optimiser
    weights = dict(network.named_parameters())
    for repetition in range(2):
        gradients = torch.autograd.grad(strategy.cross_entropy(train), list(weights.values()))
        _, virtual = strategy._virtual_step(weights, gradients)
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
        for name, weight in weights.items():
            torch.testing.assert_close(virtual[name], weight.detach(), msg=f"{name}, step {repetition}")


def test_alpha_steps_leave_weights_and_statistics_and_weight_steps_leave_alphas() -> None:
    strategy = darts(settings={"order": 2})
    before = {name: value.clone() for name, value in strategy.learner.network.state_dict().items()}
    alpha = strategy.learner.architecture.alpha.detach().clone()
    train, validation = next(iter(paired_batches(strategy.context, 0)))
    with batch_statistics(strategy.learner.network):
        strategy.alpha_step(train, validation)
    after = strategy.learner.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    moved = strategy.learner.architecture.alpha.detach().clone()
    assert not torch.equal(alpha, moved)
    strategy.learner.train_epoch(0, 0.0, strategy._weight_loss, None)
    assert torch.equal(strategy.learner.architecture.alpha, moved)
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_budget_counts_the_images_of_both_steps() -> None:
    strategy = darts()
    rows, _ = finish(strategy)
    assert [row["images_seen"] for row in rows] == [32, 64]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert strategy.context.budget.images_evaluated == 32


def test_alphas_learn_from_the_validation_half_alone() -> None:
    """A first alpha step does not depend on the train half: other train images, the same alphas."""
    alphas = []
    for flip in (False, True):
        strategy = darts()
        (x, y), validation = next(iter(paired_batches(strategy.context, 0)))
        strategy.alpha_step((-x if flip else x, y), validation)
        alphas.append(strategy.learner.architecture.alpha.detach())
    assert torch.equal(*alphas)


def test_a_shorter_validation_half_is_passed_again() -> None:
    pairs = list(paired_batches(context(train=48, validation=16), 0))
    assert len(pairs) == 3
    assert len({float(validation[0].sum()) for _, validation in pairs}) == 3  # another augmentation each time
    assert all(sorted(validation[1].tolist()) == sorted(pairs[0][1][1].tolist()) for _, validation in pairs)


def test_edge_weights_sum_to_one_into_each_node() -> None:
    weights = edge_weights(torch.randn(2, 14, generator=torch.Generator().manual_seed(0)))
    for node in range(2, 6):
        rows = [row for row, (_, target) in enumerate(EDGES) if target == node]
        torch.testing.assert_close(weights[:, rows].sum(1), torch.ones(2))


def test_alpha_table_has_every_operation_of_every_edge() -> None:
    strategy = darts()
    table = alpha_table(strategy.learner.architecture)
    assert len(table) == 2 * 14 * 8
    assert [row["op"] for row in table[:8]] == list(OPERATIONS)
    assert table[-1]["cell"] == "reduce" and (table[-1]["source"], table[-1]["node"]) == EDGES[-1]
    assert sum(row["weight"] for row in table) == pytest.approx(28)
    assert "edge_weight" not in table[0]


def test_mixture_trains_towards_the_labels() -> None:
    """Class-coloured images: the loss of the mixed supernet falls."""
    rows, _ = finish(darts(settings={"epochs": 5}, **REAL))
    assert rows[-1]["loss_child"] < 0.8 * rows[0]["loss_child"]


@pytest.mark.parametrize("settings", [{}, {"order": 2}], ids=["first", "second"])
def test_repeats_and_resumes_bit_for_bit(settings: dict[str, Any]) -> None:
    strategy = darts(settings=settings)
    rows, state = strategy.step(0), through_a_file(strategy)
    rest, result = finish(strategy, first=1)
    assert finish(darts(settings=settings)) == (rows + rest, result)
    resumed = darts(seed=0, settings=settings)
    torch.manual_seed(99)
    resumed.load_state_dict(state)
    resumed.context.budget.epochs, resumed.context.budget.images_seen = 1, 32
    assert finish(resumed, first=1) == (rest, result)


def test_another_seed_gives_another_search() -> None:
    first, second = darts(seed=0), darts(seed=1)
    assert first.step(0) != second.step(0)
    assert first.result().tables != second.result().tables


def test_loss_is_the_cross_entropy_of_the_mixture() -> None:
    strategy = darts()
    (x, y), _ = next(iter(paired_batches(strategy.context, 0)))
    with torch.no_grad():
        logits = strategy.learner.network(x, strategy.learner.architecture.mixture())
        torch.testing.assert_close(strategy.cross_entropy((x, y)), F.cross_entropy(logits, y))
