from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from search.binary import QuantConv2d, SignWeight, quant_convs, reconstruction_error, sign
from search.curvature import straight_through_tangents
from search.decoupled import operation_norms, ranking
from search.strategies.darts import Darts, DartsSettings
from search.strategies.dcp_nas import DcpNas, DcpNasSettings
from search.strategies.differentiable import Batch, batch_statistics, paired_batches
from search.tangent import child_objective
from tests.search.test_darts import context, finish, through_a_file

SETTINGS: dict[str, Any] = {
    "rounds": 2,
    "parent_epochs": 1,
    "child_epochs": 1,
    "alpha_learning_rate": 1.0,
    "alpha_weight_decay": 0.0,
}


def dcp_nas(seed: int = 0, settings: dict[str, Any] | None = None, **space: Any) -> DcpNas:
    return DcpNas(context(seed, **space), DcpNasSettings(**(SETTINGS | (settings or {}))))


def batches(strategy: DcpNas) -> tuple[Batch, Batch]:
    return next(iter(paired_batches(strategy.context, 0)))


def child_step(strategy: DcpNas) -> torch.Tensor:
    """The change of alphahat by one Child step on the first batches."""
    before = strategy.child.architecture.alpha.detach().clone()
    with batch_statistics(strategy.child.network):
        strategy._child_alpha_step(*batches(strategy))
    return strategy.child.architecture.alpha.detach() - before


@pytest.fixture(scope="module")
def searched() -> tuple[list[dict[str, Any]], Any, Any, list[dict[str, Any]]]:
    """A whole search: its rows, its result, and the state after three of four steps with the rows so far."""
    strategy = dcp_nas()
    first = [row for index in range(3) for row in strategy.step(index)]
    state = through_a_file(strategy)
    rest, result = finish(strategy, first=3)
    return first + rest, result, state, first


def test_defaults_are_those_of_the_method() -> None:
    settings = DcpNasSettings(**SETTINGS)
    assert (settings.tangent_weight, settings.reconstruction_weight) == (5e-3, 0.2)
    assert (settings.curvature, settings.distance) == ("ggn", "f_norm")
    assert settings.tangent and settings.decoupled
    assert settings.alpha_optimiser == "descent"
    with pytest.raises(ValidationError):
        DcpNasSettings(**SETTINGS, distance="l2")


def test_history_has_the_turns_of_parent_and_child(searched: Any) -> None:
    rows, result, _, _ = searched
    assert [(row["round"], row["phase"]) for row in rows] == [
        (r, p) for r in (0, 1) for p in ("parent", "child")
    ]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    # 16 train and 16 validation images an epoch; 16 more for the Parent's tangent at the end of its turn.
    assert [row["images_seen"] for row in rows] == [48, 80, 128, 160]
    for row in rows:
        is_child = row["phase"] == "child"
        for key in ("loss_child", "accuracy_child", "distance", "tangent_cosine", "reconstruction"):
            assert (row[key] is not None) == is_child
        for key in ("loss_parent", "accuracy_parent"):
            assert (row[key] is None) == is_child
    assert all(
        -1 <= row["tangent_cosine"] <= 1 and row["distance"] > 0 for row in rows if row["phase"] == "child"
    )
    assert result.validation_accuracy == rows[-1]["accuracy_child"]
    assert len(result.tables["alphas.csv"]) == 224


def test_repeats_bit_for_bit(searched: Any) -> None:
    rows, result, _, _ = searched
    assert finish(dcp_nas()) == (rows, result)


def test_another_seed_gives_another_history(searched: Any) -> None:
    assert dcp_nas(seed=1).step(0) != searched[0][:1]


def test_resumes_bit_for_bit(searched: Any) -> None:
    rows, result, state, first = searched
    resumed = dcp_nas()
    torch.manual_seed(99)
    resumed.load_state_dict(state)
    resumed.context.budget.epochs = 3
    resumed.context.budget.images_seen = first[-1]["images_seen"]
    assert finish(resumed, first=3) == (rows[3:], result)


def test_state_has_the_tangent_in_the_middle_of_a_turn() -> None:
    """Resumed between two Parent epochs, where the path's sum is open, and before the Child's: the same rest."""
    settings = {"rounds": 1, "parent_epochs": 2, "tangent_point": "path"}
    strategy = dcp_nas(settings=settings)
    strategy.step(0)
    for index in (1, 2):
        resumed = dcp_nas(settings=settings)
        resumed.load_state_dict(through_a_file(strategy))
        vars(resumed.context.budget).update(vars(strategy.context.budget))
        assert resumed.step(index) == strategy.step(index)


def test_alphas_are_inherited_both_ways() -> None:
    strategy = dcp_nas()
    parent, child = strategy.parent.architecture, strategy.child.architecture
    start = parent.alpha.detach().clone()
    strategy.step(0)
    assert torch.equal(parent.alpha, child.alpha)
    assert not torch.equal(parent.alpha, start)
    after_parent = parent.alpha.detach().clone()
    strategy.step(1)
    assert torch.equal(parent.alpha, child.alpha)
    assert not torch.equal(parent.alpha, after_parent)
    assert parent.alpha is not child.alpha
    assert not strategy.backtracking["parent"].slope.any()


def test_parents_turn_without_decoupling_is_darts() -> None:
    """A Parent epoch is first-order DARTS on the real twin: the same alphas and weights."""
    strategy = dcp_nas(settings={"decoupled": False, "alpha_learning_rate": 0.5, "rounds": 1})
    strategy.step(0)
    settings = DartsSettings(
        epochs=2, order=1, alpha_learning_rate=0.5, alpha_weight_decay=0.0, alpha_optimiser="descent"
    )
    darts = Darts(context(binary=False), settings)
    darts.step(0)
    torch.testing.assert_close(strategy.parent.architecture.alpha, darts.learner.architecture.alpha)
    ours, theirs = strategy.parent.network.state_dict(), darts.learner.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_tangent_at_the_end_is_the_mean_over_the_validation_batches() -> None:
    """df^P/dalpha (4.29), f^P minus the cross entropy, at the weights and alpha the Child inherits."""
    strategy = dcp_nas(train=32, validation=32, settings={"tangent_point": "end"})
    strategy._close_parent_phase()
    parent = strategy.parent
    gradients = []
    stream = strategy.context.batches(strategy.context.validation, training=True, seed_offset=1).epoch(0)
    for x, y in stream:
        with batch_statistics(parent.network):
            loss = F.cross_entropy(parent.predict(x), y)
        gradients.append(torch.autograd.grad(loss, parent.architecture.alpha)[0])
    assert len(gradients) == 2
    torch.testing.assert_close(strategy.tangent, -(gradients[0] + gradients[1]) / 2)
    assert strategy.tangent.any()


def test_path_tangent_is_the_mean_of_the_turns_gradients() -> None:
    """With plain descent the alphas move by eta_1 times the sum of the tangents of the turn."""
    settings = {"tangent_point": "path", "decoupled": False, "alpha_learning_rate": 0.1}
    strategy = dcp_nas(train=32, validation=32, settings=settings)
    start = strategy.parent.architecture.alpha.detach().clone()
    strategy.step(0)
    moved = strategy.parent.architecture.alpha.detach() - start
    torch.testing.assert_close(strategy.tangent, moved / (0.1 * 2), rtol=1e-3, atol=1e-6)


def test_moving_alphahat_along_the_parents_tangent_lowers_the_parents_cross_entropy() -> None:
    strategy = dcp_nas()
    strategy._close_parent_phase()
    parent = strategy.parent
    ((x, y),) = strategy.context.batches(strategy.context.validation, training=True, seed_offset=1).epoch(0)

    def cross_entropy() -> float:
        with torch.no_grad(), batch_statistics(parent.network):
            return float(F.cross_entropy(parent.predict(x), y))

    before = cross_entropy()
    with torch.no_grad():
        parent.architecture.alpha += 0.5 * strategy.tangent / strategy.tangent.norm()
    assert cross_entropy() < before


def test_lambda_and_mu_0_give_the_objective_of_cp_nas() -> None:
    """alphahat descends on -G alone and the weights on -G alone: distillation from the Parent, no more."""
    strategy = dcp_nas(settings={"tangent_weight": 0.0, "reconstruction_weight": 0.0, "decoupled": False})
    strategy._close_parent_phase()
    train, (x, _) = batches(strategy)
    with torch.no_grad(), batch_statistics(strategy.parent.network):
        p = torch.softmax(strategy.parent.predict(x), -1)
    child = strategy.child
    with batch_statistics(child.network):
        (expected,) = torch.autograd.grad(child_objective(child.predict(x), p), child.architecture.alpha)
    torch.testing.assert_close(child_step(strategy), expected, rtol=1e-4, atol=1e-7)
    loss, reported = strategy._child_loss(train)
    assert torch.equal(loss, reported)
    assert float(loss.detach()) > 0


def test_tangent_changes_the_step() -> None:
    steps = {}
    for name, settings in {"off": {"tangent": False}, "on": {"tangent_weight": 5.0}}.items():
        strategy = dcp_nas(settings={"decoupled": False} | settings)
        strategy._close_parent_phase()
        steps[name] = child_step(strategy)
    assert (steps["on"] - steps["off"]).norm() > 1e-3 * steps["off"].norm()


def test_child_gradient_of_the_network_with_the_hessian_formed_by_double_backward() -> None:
    """(4.33) on a real Child in float64 with batch norm in training mode: ``exact`` against its definition."""
    strategy = dcp_nas(settings={"curvature": "exact", "decoupled": False, "tangent_weight": 0.7})
    for learner in strategy.learners.values():
        learner.network.double()
        learner.architecture.double()
    strategy.tangent = 0.01 * torch.randn(
        2, 14, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    _, (x, y) = batches(strategy)
    x = x.double()
    child, alpha = strategy.child, strategy.child.architecture.alpha
    with batch_statistics(child.network), straight_through_tangents(child.network):
        p = strategy._targets(x)
        logits = child.network(x, child.architecture.mixture(alpha))
        (g,) = torch.autograd.grad(child_objective(logits, p), alpha, create_graph=True)
        loss = 0.7 * (g - strategy.tangent).square().sum()
        (curved,) = torch.autograd.grad(loss, alpha)
        expected = (curved - g).detach()
        before = alpha.detach().clone()
        strategy._child_alpha_step((x, y), (x, y))
    torch.testing.assert_close(before - alpha.detach(), expected, rtol=1e-8, atol=1e-12)


def test_decoupling_leads_back_the_heavy_operations_only() -> None:
    steps = {}
    for name in ("on", "off"):
        strategy = dcp_nas(settings={"decoupled": name == "on", "eta": 100.0, "psi_start": 1.0, "tau": 0.6})
        selected = ranking(operation_norms(strategy.child.network)) > 0.6
        alpha = strategy.child.architecture.alpha.detach().clone()
        strategy._inherit("parent", "child")
        steps[name] = child_step(strategy)
    difference = steps["on"] - steps["off"]
    torch.testing.assert_close(difference[selected], 100.0 * alpha[selected], rtol=1e-3, atol=1e-5)
    assert torch.equal(steps["on"][~selected], steps["off"][~selected])
    assert 0 < selected.sum() < selected.numel()


def test_parents_outputs_are_targets_without_a_trace() -> None:
    strategy = dcp_nas()
    before = {name: value.clone() for name, value in strategy.parent.network.state_dict().items()}
    targets = strategy._targets(batches(strategy)[0][0])
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    assert not targets.requires_grad
    after = strategy.parent.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


# ---- L_R


def test_gradient_of_the_reconstruction_error() -> None:
    """d/dw || w - beta o sign(w) ||^2 = 2 (w - beta o sign(w)), beta constant; against finite differences too."""
    torch.manual_seed(0)
    conv = QuantConv2d(3, 4, 3, weight_quantiser=SignWeight("none", 4)).double()
    (found,) = torch.autograd.grad(reconstruction_error(conv), conv.weight)
    w = conv.weight.detach()
    torch.testing.assert_close(found, 2 * (w - sign(w)))
    with torch.no_grad():
        conv.weight[1, 2, 0, 0] += 1e-6
        above = reconstruction_error(conv)
        conv.weight[1, 2, 0, 0] -= 2e-6
        below = reconstruction_error(conv)
    assert float((above - below) / 2e-6) == pytest.approx(float(found[1, 2, 0, 0]), rel=1e-5)


def test_gradient_of_the_reconstruction_error_in_a_learned_scale() -> None:
    torch.manual_seed(0)
    conv = QuantConv2d(3, 4, 3, weight_quantiser=SignWeight("learned", 4)).double()
    magnitude = conv.weight_quantiser.magnitude
    (found,) = torch.autograd.grad(reconstruction_error(conv), magnitude)
    expected = torch.zeros_like(magnitude)
    for channel in range(4):
        sides = []
        for side in (1e-6, -1e-6):
            with torch.no_grad():
                magnitude[channel] += side
                sides.append(reconstruction_error(conv))
                magnitude[channel] -= side
        expected[channel] = (sides[0] - sides[1]) / 2e-6
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-8)


def test_reconstruction_enters_the_weights_of_the_child() -> None:
    """mu L_R adds 2 mu (w - beta o sign(w)) to the gradient of each 1-bit convolution, and nothing elsewhere."""
    strategy = dcp_nas()
    train, _ = batches(strategy)
    parameters = list(strategy.child.network.parameters())
    with batch_statistics(strategy.child.network):
        loss, divergence = strategy._child_loss(train)
        with_error = torch.autograd.grad(loss, parameters)
    strategy.settings = strategy.settings.model_copy(update={"reconstruction_weight": 0.0})
    with batch_statistics(strategy.child.network):
        without = torch.autograd.grad(strategy._child_loss(train)[0], parameters)
    torch.testing.assert_close(loss - divergence, 0.2 * strategy.reconstruction(), rtol=1e-4, atol=1e-4)
    convs = {id(conv.weight): conv for _, conv in quant_convs(strategy.child.network)}
    for parameter, first, second in zip(parameters, with_error, without, strict=True):
        conv = convs.get(id(parameter))
        w = parameter.detach()
        added = (
            0.4 * (w - conv.weight_quantiser.beta(w) * sign(w)) if conv is not None else torch.zeros_like(w)
        )
        torch.testing.assert_close(first - second, added, rtol=1e-3, atol=1e-4)


def test_mean_of_the_reconstruction_error_is_over_the_1_bit_convolutions() -> None:
    strategy = dcp_nas()
    total = strategy.reconstruction().item()
    strategy.settings = strategy.settings.model_copy(update={"reconstruction_reduction": "mean"})
    count = sum(1 for _ in quant_convs(strategy.child.network))
    assert strategy.reconstruction().item() == pytest.approx(total / count, rel=1e-5)
