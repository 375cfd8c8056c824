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


SHARES = ("tangent_share", "reconstruction_share", "curvature_cosine")


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
    assert (settings.tangent_weight, settings.reconstruction_weight) == (0.1, 0.1)
    assert settings.tangent_scaling == settings.reconstruction_scaling == "relative"
    assert (settings.curvature, settings.distance) == ("ggn", "f_norm")
    assert settings.tangent and settings.decoupled
    assert settings.alpha_optimiser == "descent"
    with pytest.raises(ValidationError):
        DcpNasSettings(**SETTINGS, distance="l2")
    with pytest.raises(ValidationError, match="always 0"):
        DcpNasSettings(**SETTINGS, distance="cosine", curvature="outer")


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
        for key in ("loss_child", "accuracy_child", "distance", "tangent_cosine", "reconstruction", *SHARES):
            assert (row[key] is not None) == is_child
        for key in ("loss_parent", "accuracy_parent"):
            assert (row[key] is None) == is_child
    assert all(
        -1 <= row["tangent_cosine"] <= 1 and row["distance"] > 0 for row in rows if row["phase"] == "child"
    )
    assert result.validation_accuracy == rows[-1]["accuracy_child"]
    assert len(result.tables["alphas.csv"]) == 224


def test_every_part_of_the_method_is_at_work(searched: Any) -> None:
    """Terms have their share, signs change, psi moves, curvature is compared: in the history and in the metrics."""
    rows, result, _, _ = searched
    child = [row for row in rows if row["phase"] == "child"]
    for row in child:
        assert row["tangent_share"] == pytest.approx(0.1, rel=1e-3)
        assert row["reconstruction_share"] == pytest.approx(0.1, rel=1e-3)
        assert row["sign_flips"] > 0
        assert -1 <= row["curvature_cosine"] <= 1
        assert row["backtrack_share"] > 0
    assert all(row["selection_change_share"] is None for row in rows[:2])
    assert all(0 <= row["selection_change_share"] <= 1 for row in rows[2:])
    metrics = result.metrics
    for key in ("tangent_share", "reconstruction_share"):
        assert 0.05 < metrics[key] < 0.2
    assert metrics["sign_flip_share"] > 0
    assert metrics["tie_share"] == 0
    assert metrics["entropy_drop"] > 0
    assert None not in metrics.values()


def test_psi_moves() -> None:
    strategy = dcp_nas(train=48, settings={"rounds": 1, "eta_psi": 0.02})
    rows = [row for index in range(2) for row in strategy.step(index)]
    for row in rows:
        assert row["psi_min"] < 0.1 - 0.01
        assert row["psi_max"] > 0.1 + 0.01
    metrics = strategy.result().metrics
    assert metrics["psi_smallest"] <= rows[0]["psi_min"] and metrics["psi_largest"] >= rows[0]["psi_max"]


def test_as_printed_the_tangent_is_nothing_and_the_weights_freeze() -> None:
    """The literal 5e-3 and 0.2 of the sum, kept as a variant: what the default's normalisation is for."""
    literal = {
        "tangent_weight": 5e-3,
        "tangent_scaling": "printed",
        "reconstruction_weight": 0.2,
        "reconstruction_scaling": "printed",
        "rounds": 1,
    }
    rows = {}
    for name, settings in (("printed", literal), ("relative", {"rounds": 1})):
        strategy = dcp_nas(train=32, settings=settings)
        strategy.step(0)
        (rows[name],) = strategy.step(1)
    assert rows["printed"]["tangent_share"] < 1e-2
    assert rows["printed"]["reconstruction_share"] > 1
    assert rows["printed"]["sign_flips"] < 0.2 * rows["relative"]["sign_flips"]


def test_the_child_starts_its_epochs_from_the_parents_weights() -> None:
    """p. 109 as a setting: convolutions, stem and classifier are the Parent's before the epoch, and only then."""
    strategy = dcp_nas(settings={"inherit_weights": True})
    strategy.step(0)
    seen = []
    real = strategy.child.train_epoch

    def watch(*arguments: Any) -> float:
        for (_, ours), (_, theirs) in zip(
            quant_convs(strategy.child.network), quant_convs(strategy.parent.network), strict=True
        ):
            assert torch.equal(ours.weight, theirs.weight)
        ours, theirs = strategy.child.network.classifier, strategy.parent.network.classifier
        seen.append(torch.equal(ours.weight, theirs.weight))
        return real(*arguments)

    strategy.child.train_epoch = watch  # type: ignore[method-assign]
    strategy.step(1)
    assert seen == [True]
    pairs = zip(quant_convs(strategy.child.network), quant_convs(strategy.parent.network), strict=True)
    assert any(not torch.equal(ours.weight, theirs.weight) for (_, ours), (_, theirs) in pairs)


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
    strategy = dcp_nas(
        settings={
            "curvature": "exact",
            "decoupled": False,
            "tangent_weight": 0.7,
            "tangent_scaling": "printed",
            "measure_curvature": False,
        }
    )
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


def gradients_of_a_step(strategy: DcpNas) -> list[torch.Tensor]:
    """Of all weights of the Child, after one batch and its amendment."""
    train, _ = batches(strategy)
    network = strategy.child.network
    network.zero_grad(set_to_none=True)
    with batch_statistics(network):
        strategy._child_loss(train)[0].backward(inputs=list(network.parameters()))
    if strategy.settings.reconstruction_weight > 0:
        strategy._pull_together()
    return [parameter.grad.clone() for parameter in network.parameters()]  # type: ignore[union-attr]


def test_reconstruction_enters_the_weights_of_the_child() -> None:
    """mu L_R as printed adds 2 mu (w - beta o sign(w)) to the gradient of each 1-bit convolution, nothing elsewhere."""
    strategy = dcp_nas(settings={"reconstruction_weight": 0.2, "reconstruction_scaling": "printed"})
    with_error = gradients_of_a_step(strategy)
    strategy.settings = strategy.settings.model_copy(update={"reconstruction_weight": 0.0})
    without = gradients_of_a_step(strategy)
    convs = {id(conv.weight): conv for _, conv in quant_convs(strategy.child.network)}
    for parameter, first, second in zip(
        strategy.child.network.parameters(), with_error, without, strict=True
    ):
        conv = convs.get(id(parameter))
        w = parameter.detach()
        added = (
            0.4 * (w - conv.weight_quantiser.beta(w) * sign(w)) if conv is not None else torch.zeros_like(w)
        )
        torch.testing.assert_close(first - second, added, rtol=1e-3, atol=1e-4)


def test_a_relative_mu_is_the_share_of_the_gradient() -> None:
    """Norm of what is added over that of -G's gradient, both in the 1-bit weights; the direction is that of L_R."""
    strategy = dcp_nas(settings={"reconstruction_weight": 0.3})
    with_error = gradients_of_a_step(strategy)
    strategy.settings = strategy.settings.model_copy(update={"reconstruction_weight": 0.0})
    without = gradients_of_a_step(strategy)
    ones = {id(conv.weight) for _, conv in quant_convs(strategy.child.network)}
    chosen = [id(p) in ones for p in strategy.child.network.parameters()]
    added = [a - b for a, b, one in zip(with_error, without, chosen, strict=True) if one]
    reference = [b for b, one in zip(without, chosen, strict=True) if one]
    share = torch.stack([a.norm() for a in added]).norm() / torch.stack([b.norm() for b in reference]).norm()
    assert float(share) == pytest.approx(0.3, rel=1e-3)
    assert all(torch.equal(a, b) for a, b, one in zip(with_error, without, chosen, strict=True) if not one)


def test_recorded_reconstruction_error_is_a_mean_over_the_1_bit_weights() -> None:
    strategy = dcp_nas()
    convs = [conv for _, conv in quant_convs(strategy.child.network)]
    total = sum(
        float((conv.weight - conv.weight_quantiser(conv.weight)).square().sum().detach()) for conv in convs
    )
    assert strategy.reconstruction() == pytest.approx(total / sum(c.weight.numel() for c in convs), rel=1e-5)
