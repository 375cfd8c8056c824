"""Curvature products against explicitly formed matrices, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian

from search.binary import QuantConv2d, SignActivation, SignWeight
from search.curvature import (
    ggn_product,
    hessian_product,
    jacobian_product,
    objective_curvature,
    outer_product,
    softmax_hessian_product,
    straight_through_tangents,
)
from search.network import NetworkConfig
from search.strategies.differentiable import ArchitectureParameters, batch_statistics
from search.style import OperationStyle
from search.supernet import Supernet
from search.tangent import child_objective, parent_objective
from tests.counting import PeakBytes

SAMPLES, CLASSES, SHAPE = 6, 4, (3, 5)


def smooth(seed: int = 0) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A smooth function of alpha (3, 5) to logits (6, 4), a point, and a direction."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second = draw(15, 7), draw(7, SAMPLES * CLASSES)

    def outputs(alpha: Tensor) -> Tensor:
        return (torch.tanh(torch.softmax(alpha, -1).flatten() @ first) @ second).view(SAMPLES, CLASSES)

    return outputs, draw(*SHAPE).requires_grad_(), draw(*SHAPE)


def linear(seed: int = 0) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Logits that are linear in alpha."""
    _, alpha, vector = smooth(seed)
    matrix = torch.randn(
        15, SAMPLES * CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 9)
    )
    return lambda a: (a.flatten() @ matrix).view(SAMPLES, CLASSES), alpha, vector


def explicit_ggn(outputs: Callable[[Tensor], Tensor], alpha: Tensor) -> Tensor:
    """(1/N) J^T H_out J with every factor formed as a matrix, (15, 15)."""
    j = jacobian(outputs, alpha.detach()).reshape(SAMPLES, CLASSES, -1)
    p = torch.softmax(outputs(alpha.detach()), -1)
    h = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nci,ncd,ndj->ij", j, h, j) / SAMPLES


def targets() -> Tensor:
    noise = torch.randn(SAMPLES, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return torch.softmax(noise, -1)


def test_softmax_hessian_is_that_of_cross_entropy_and_of_kl() -> None:
    logits = torch.randn(CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vector = torch.arange(CLASSES, dtype=torch.float64)
    found = softmax_hessian_product(logits[None], vector[None])[0]
    for label in range(CLASSES):
        matrix = hessian(lambda z, y=label: -parent_objective(z[None], torch.tensor([y])), logits)
        torch.testing.assert_close(found, matrix @ vector)
    matrix = hessian(lambda z: -child_objective(z[None], targets()[:1]), logits)
    torch.testing.assert_close(found, matrix @ vector)


def test_ggn_is_the_explicit_product() -> None:
    outputs, alpha, vector = smooth()
    matrix = explicit_ggn(outputs, alpha)
    found = ggn_product(outputs, alpha, vector)
    torch.testing.assert_close(found.flatten(), matrix @ vector.flatten(), rtol=1e-10, atol=1e-12)


def test_ggn_reuses_given_logits() -> None:
    outputs, alpha, vector = smooth()
    torch.testing.assert_close(
        ggn_product(outputs, alpha, vector, outputs(alpha)),
        ggn_product(outputs, alpha, vector),
        rtol=0,
        atol=0,
    )


def test_ggn_is_symmetric_and_positive_semi_definite() -> None:
    outputs, alpha, _ = smooth()
    identity = torch.eye(15, dtype=torch.float64)
    matrix = torch.stack([ggn_product(outputs, alpha, row.view(SHAPE)).flatten() for row in identity])
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-14)
    values = torch.linalg.eigvalsh(matrix)
    assert values.min() > -1e-14
    assert values.max() > 1e-3


@pytest.mark.parametrize("target", ["kl", "cross_entropy"])
def test_ggn_is_the_exact_hessian_where_outputs_are_linear(target: str) -> None:
    outputs, alpha, vector = linear()
    labels = torch.arange(SAMPLES) % CLASSES

    def loss(a: Tensor) -> Tensor:
        return -(
            child_objective(outputs(a), targets()) if target == "kl" else parent_objective(outputs(a), labels)
        )

    (gradient,) = torch.autograd.grad(loss(alpha), alpha, create_graph=True)
    exact = hessian_product(gradient, alpha, vector)
    torch.testing.assert_close(ggn_product(outputs, alpha, vector), exact, rtol=1e-9, atol=1e-12)


def test_ggn_differs_from_the_hessian_elsewhere() -> None:
    outputs, alpha, vector = smooth()
    (gradient,) = torch.autograd.grad(-child_objective(outputs(alpha), targets()), alpha, create_graph=True)
    exact = hessian_product(gradient, alpha, vector)
    assert (ggn_product(outputs, alpha, vector) - exact).norm() > 1e-3 * exact.norm()


def test_exact_product_is_the_hessian_formed_by_autograd() -> None:
    outputs, alpha, vector = smooth()
    matrix = hessian(lambda a: child_objective(outputs(a), targets()), alpha.detach()).reshape(15, 15)
    (gradient,) = torch.autograd.grad(child_objective(outputs(alpha), targets()), alpha, create_graph=True)
    found = hessian_product(gradient, alpha, vector)
    torch.testing.assert_close(found.flatten(), matrix @ vector.flatten(), rtol=1e-9, atol=1e-12)


def test_exact_product_of_a_linear_objective_is_zero() -> None:
    alpha = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((2 * alpha).sum(), alpha, create_graph=True)
    assert torch.equal(hessian_product(gradient, alpha, torch.ones_like(alpha)), torch.zeros_like(alpha))


def test_fisher_identity_by_monte_carlo() -> None:
    """4.36-4.41: E[grad log p(y) grad log p(y)^T], y drawn from the model, is J^T H_out J."""
    outputs, alpha, _ = smooth()
    draws, generator = 40_000, torch.Generator().manual_seed(5)
    logits = outputs(alpha.detach())
    p = torch.softmax(logits, -1)
    j = jacobian(outputs, alpha.detach()).reshape(SAMPLES, CLASSES, -1)
    estimate = torch.zeros(15, 15, dtype=torch.float64)
    for sample in range(SAMPLES):
        labels = torch.multinomial(p[sample], draws, replacement=True, generator=generator)
        in_logits = nn.functional.one_hot(labels, CLASSES) - p[sample]
        scores = in_logits.double() @ j[sample]
        torch.testing.assert_close(scores.mean(0), torch.zeros(15, dtype=torch.float64), rtol=0, atol=0.1)
        estimate += scores.T @ scores / draws / SAMPLES
    identity = torch.eye(15, dtype=torch.float64)
    ggn = torch.stack([ggn_product(outputs, alpha, row.view(SHAPE)).flatten() for row in identity])
    # A mean of n draws has a relative error of some 1/sqrt(n) = 0.005.
    assert (estimate - ggn).norm() < 5 / math.sqrt(draws) * ggn.norm()


def test_scores_of_the_fisher_identity_are_gradients_of_log_likelihoods() -> None:
    """The scores above, (onehot - p)^T J, are what autograd gives for log p(y)."""
    outputs, alpha, _ = smooth()
    p = torch.softmax(outputs(alpha.detach()), -1)
    j = jacobian(outputs, alpha.detach()).reshape(SAMPLES, CLASSES, -1)
    log_likelihood = torch.log_softmax(outputs(alpha), -1)[2, 1]
    (gradient,) = torch.autograd.grad(log_likelihood, alpha)
    onehot = torch.eye(CLASSES, dtype=torch.float64)[1]
    torch.testing.assert_close(gradient.flatten(), (onehot - p[2]) @ j[2])


def test_outer_product_is_the_rank_one_matrix() -> None:
    _, alpha, vector = smooth()
    g = alpha.detach().flatten()
    found = outer_product(alpha.detach(), vector).flatten()
    torch.testing.assert_close(found, torch.outer(g, g) @ vector.flatten())


def test_approximations_have_the_sign_of_a_maximised_objective() -> None:
    """Where outputs are linear, H_G is minus the Gauss-Newton matrix; v^T H_G v is never positive for both."""
    outputs, alpha, vector = linear()
    found = {}
    for kind in ("exact", "ggn", "outer"):
        logits = outputs(alpha)
        (gradient,) = torch.autograd.grad(child_objective(logits, targets()), alpha, create_graph=True)
        found[kind] = objective_curvature(kind, outputs, alpha, logits, gradient, vector).detach()  # type: ignore[arg-type]
    torch.testing.assert_close(found["ggn"], found["exact"], rtol=1e-9, atol=1e-12)
    assert (vector * found["ggn"]).sum() < 0
    assert (vector * found["outer"]).sum() < 0


# ---- 1-bit networks


def tiny_supernet(
    form: str = "paper", estimator: str = "bireal", binary: bool = True
) -> tuple[Supernet, Tensor]:
    torch.manual_seed(0)
    style = OperationStyle(form=form, binary=binary, estimator=estimator)  # type: ignore[arg-type]
    network = Supernet(NetworkConfig(4, 3, CLASSES, "cifar", style)).double()
    return network, torch.randn(SAMPLES, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    ("form", "estimator", "binary"),
    [
        ("paper", "bireal", True),
        ("paper", "ste", True),
        ("released", "bireal", True),
        ("paper", "ste", False),
    ],
)
def test_forward_mode_takes_the_straight_through_derivative_of_reverse_mode(
    form: str, estimator: str, binary: bool
) -> None:
    """J v by forward mode equals J v by two reverse passes, in training mode with batch norm."""
    network, x = tiny_supernet(form, estimator, binary)
    architecture = ArchitectureParameters(0, 0.5).double()
    alpha, vector = architecture.alpha, torch.randn(2, 14, 8, dtype=torch.float64)

    def outputs(a: Tensor) -> Tensor:
        return network(x, architecture.mixture(a))

    with straight_through_tangents(network), batch_statistics(network):
        forward = jacobian_product(outputs, alpha, vector)
        logits = outputs(alpha)
    dummy = torch.zeros_like(logits, requires_grad=True)
    (pulled,) = torch.autograd.grad(logits, alpha, dummy, create_graph=True)
    (twice,) = torch.autograd.grad(pulled, dummy, vector)
    torch.testing.assert_close(forward, twice, rtol=1e-9, atol=1e-11)
    assert forward.abs().max() > 1e-3


@pytest.mark.parametrize(("estimator", "expected"), [("ste", [0, 1, 1, 1, 0]), ("bireal", [0, 1, 2, 0, 0])])
def test_straight_through_mask(estimator: str, expected: list[float]) -> None:
    """The tangent passes where |x| <= 1 (4.35), weighted by the estimator, as the gradient does."""
    x = torch.tensor([-1.5, -0.5, 0.0, 1.0, 2.0], dtype=torch.float64)
    module = nn.Sequential(SignActivation(estimator))  # type: ignore[arg-type]
    with straight_through_tangents(module):
        tangent = jacobian_product(module, x, torch.ones_like(x))
        values = module(x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(leaf).sum(), leaf)
    assert tangent.tolist() == gradient.tolist() == expected
    assert values.tolist() == [-1, -1, 1, 1, 1]


def test_switched_off_sign_passes_the_tangent_whole() -> None:
    module = SignActivation()
    module.enabled = False
    x = torch.tensor([-3.0, 0.5])
    with straight_through_tangents(module):
        assert jacobian_product(module, x, torch.ones(2)).tolist() == [1, 1]


def test_hooks_are_gone_afterwards() -> None:
    conv = QuantConv2d(2, 2, 1, input_quantiser=SignActivation(), weight_quantiser=SignWeight("mean_abs", 2))
    with pytest.raises(RuntimeError, match="interrupted"), straight_through_tangents(conv):
        raise RuntimeError("interrupted")
    assert not conv.input_quantiser._forward_hooks and not conv.input_quantiser._forward_pre_hooks


def test_products_leave_the_running_statistics_alone() -> None:
    network, x = tiny_supernet()
    before = {name: value.clone() for name, value in network.named_buffers()}
    architecture = ArchitectureParameters(0, 0.5).double()
    with straight_through_tangents(network), batch_statistics(network):
        ggn_product(
            lambda a: network(x, architecture.mixture(a)), architecture.alpha, torch.ones(2, 14, 8).double()
        )
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize("kind", ["ggn", "exact", "outer"])
def test_memory_stays_within_two_and_a_half_plain_steps(kind: str) -> None:
    network, x = tiny_supernet()
    architecture = ArchitectureParameters(0, 0.5).double()
    alpha, weights = architecture.alpha, list(network.parameters())

    def outputs(a: Tensor) -> Tensor:
        return network(x, architecture.mixture(a))

    with PeakBytes() as plain:
        torch.autograd.grad(child_objective(outputs(alpha), targets()), weights)
    with PeakBytes() as product, straight_through_tangents(network), batch_statistics(network):
        logits = outputs(alpha)
        (gradient,) = torch.autograd.grad(
            child_objective(logits, targets()), alpha, create_graph=kind == "exact", retain_graph=True
        )
        objective_curvature(kind, outputs, alpha, logits, gradient, torch.ones_like(alpha))  # type: ignore[arg-type]
    assert plain.peak < product.peak * 1.01
    assert product.peak < 2.5 * plain.peak
