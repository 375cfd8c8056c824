"""The tangents, D and the Child's gradient against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional as F

from search.tangent import (
    child_gradient,
    child_objective,
    cosine,
    distance,
    distance_gradient,
    parent_objective,
    tangent,
    term_factor,
)
from tests.search.test_curvature import SHAPE, explicit_ggn, linear, smooth, targets

KINDS = ["f_norm", "l1", "cosine"]
WEIGHT = 0.3


def parent_tangent() -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(11)) / 10


def objective(logits: Tensor) -> Tensor:
    return child_objective(logits, targets())


def child_loss(outputs: Callable[[Tensor], Tensor], alpha: Tensor, kind: str) -> Tensor:
    """-G + lambda D with every gradient taken by autograd, as a function of alphahat."""
    leaf = alpha.detach().clone().requires_grad_()
    value = objective(outputs(leaf))
    (gradient,) = torch.autograd.grad(value, leaf)
    return (-value + WEIGHT * distance(gradient, parent_tangent(), kind)).detach()  # type: ignore[arg-type]


def finite_differences(function: Callable[[Tensor], Tensor], alpha: Tensor, step: float = 1e-5) -> Tensor:
    result = torch.zeros_like(alpha)
    for place in range(alpha.numel()):
        unit = torch.zeros(alpha.numel(), dtype=alpha.dtype)
        unit[place] = step
        unit = unit.view(alpha.shape)
        result.view(-1)[place] = (function(alpha + unit) - function(alpha - unit)) / (2 * step)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_d_by_exact_curvature_is_that_of_finite_differences(kind: str) -> None:
    outputs, alpha, _ = smooth()
    found = child_gradient(outputs, objective, alpha, parent_tangent(), WEIGHT, "printed", kind, "exact")  # type: ignore[arg-type]
    expected = finite_differences(lambda a: child_loss(outputs, a, kind), alpha.detach())
    torch.testing.assert_close(found.gradient, expected, rtol=1e-6, atol=1e-9)
    # D matters here: without it the gradient is another.
    assert (found.gradient + found.tangent).norm() > 0.05 * found.tangent.norm()


def test_gradient_is_4_33_with_the_hessian_formed() -> None:
    """-dG/dalphahat + 2 lambda H_G (dG/dalphahat - df^P/dalpha), every term a matrix or vector."""
    outputs, alpha, _ = smooth()
    value = objective(outputs(alpha))
    g = torch.autograd.grad(value, alpha)[0].flatten()
    t = parent_tangent().flatten()
    exact = hessian(lambda a: objective(outputs(a)), alpha.detach()).reshape(15, 15)
    matrices = {"exact": exact, "ggn": -explicit_ggn(outputs, alpha), "outer": -torch.outer(g, g)}
    for curvature, matrix in matrices.items():
        found = child_gradient(
            outputs, objective, alpha, parent_tangent(), WEIGHT, "printed", "f_norm", curvature
        )  # type: ignore[arg-type]
        torch.testing.assert_close(found.gradient.flatten(), -g + 2 * WEIGHT * matrix @ (g - t))
        torch.testing.assert_close(found.tangent.flatten(), g)


def test_ggn_gives_the_exact_gradient_where_outputs_are_linear() -> None:
    outputs, alpha, _ = linear()
    gradients = [
        child_gradient(
            outputs, objective, alpha, parent_tangent(), WEIGHT, "printed", "f_norm", curvature
        ).gradient
        for curvature in ("exact", "ggn", "outer")
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
    assert (gradients[0] - gradients[2]).norm() > 1e-3 * gradients[0].norm()


@pytest.mark.parametrize("curvature", ["exact", "ggn", "outer"])
def test_without_tangent_or_with_lambda_0_the_objective_is_that_of_cp_nas(curvature: str) -> None:
    """lambda = 0: the gradient is -dG/dalphahat, to the last bit."""
    outputs, alpha, _ = smooth()
    (g,) = torch.autograd.grad(objective(outputs(alpha)), alpha)
    arguments = (outputs, objective, alpha)
    without = child_gradient(*arguments, None, WEIGHT, "printed", "f_norm", curvature)  # type: ignore[arg-type]
    zero = child_gradient(*arguments, parent_tangent(), 0.0, "printed", "f_norm", curvature)  # type: ignore[arg-type]
    assert torch.equal(without.gradient, -g)
    assert torch.equal(zero.gradient, -g)
    assert without.distance is None and without.cosine is None


@pytest.mark.parametrize("kind", KINDS)
def test_step_along_the_gradient_lowers_the_distance(kind: str) -> None:
    """lambda large: descending on -G + lambda D with exact curvature lowers D."""
    outputs, alpha, _ = smooth()
    weight = 1e4
    before = child_gradient(outputs, objective, alpha, parent_tangent(), weight, "printed", kind, "exact")  # type: ignore[arg-type]
    moved = (alpha.detach() - 1e-3 * before.gradient / before.gradient.norm()).requires_grad_()
    after = child_gradient(outputs, objective, moved, parent_tangent(), weight, "printed", kind, "exact")  # type: ignore[arg-type]
    assert before.distance is not None and after.distance is not None
    assert after.distance < before.distance


# ---- sign convention


def test_moving_along_the_parents_tangent_lowers_its_cross_entropy() -> None:
    outputs, alpha, _ = smooth()
    labels = torch.arange(6) % 4
    direction = tangent(parent_objective(outputs(alpha), labels), alpha)
    with torch.no_grad():
        before = F.cross_entropy(outputs(alpha), labels)
        after = F.cross_entropy(outputs(alpha + 0.01 * direction), labels)
    assert after < before


def test_moving_along_the_childs_tangent_lowers_the_divergence() -> None:
    outputs, alpha, _ = smooth()
    found = child_gradient(outputs, objective, alpha, parent_tangent(), WEIGHT, "printed", "f_norm", "ggn")
    with torch.no_grad():
        assert objective(outputs(alpha + 0.01 * found.tangent)) > objective(outputs(alpha))


def test_both_tangents_agree_where_the_child_is_the_parent_and_its_outputs_the_labels() -> None:
    """With the same network and p the one-hot labels, G = f^P: one tangent, distance 0, cosine 1."""
    outputs, alpha, _ = smooth()
    labels = torch.arange(6) % 4
    onehot = F.one_hot(labels, 4).double()
    t = tangent(parent_objective(outputs(alpha), labels), alpha)
    found = child_gradient(
        outputs,
        lambda logits: child_objective(logits, onehot),
        alpha,
        t,
        WEIGHT,
        "printed",
        "f_norm",
        "exact",
    )
    torch.testing.assert_close(found.tangent, t)
    assert found.distance == pytest.approx(0.0, abs=1e-20)
    assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "curvature"),
    [(kind, curvature) for kind in KINDS for curvature in ("exact", "ggn", "outer")][:-1],
)
def test_a_relative_weight_is_the_share_of_the_term(kind: str, curvature: str) -> None:
    """|lambda H dD/dg| = 0.1 |dG/dalphahat|, whatever the sizes of G, t and H; the direction is that of the printed."""
    outputs, alpha, _ = smooth()
    arguments = (outputs, objective, alpha)
    for size in (1e-4, 1.0, 1e4):
        t = size * parent_tangent()
        found = child_gradient(*arguments, t, 0.1, "relative", kind, curvature)  # type: ignore[arg-type]
        printed = child_gradient(*arguments, t, 1.0, "printed", kind, curvature)  # type: ignore[arg-type]
        term, literal = found.gradient + found.tangent, printed.gradient + printed.tangent
        assert float(term.norm() / found.tangent.norm()) == pytest.approx(0.1, rel=1e-5)
        assert found.share == pytest.approx(0.1, rel=1e-5)
        assert float(cosine(term, literal)) == pytest.approx(1.0, abs=1e-5)
        assert printed.share == pytest.approx(float(literal.norm() / found.tangent.norm()), rel=1e-9)


def test_a_term_without_a_gradient_stays_nothing() -> None:
    assert float(term_factor(0.1, "relative", torch.tensor(0.0), torch.tensor(3.0))) == 0.0
    assert float(term_factor(0.1, "relative", torch.tensor(2.0), torch.tensor(4.0))) == pytest.approx(0.2)
    assert float(term_factor(0.1, "printed", torch.tensor(2.0), torch.tensor(4.0))) == pytest.approx(0.1)


# ---- objectives and distances


def test_child_objective_is_minus_the_mean_divergence() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p, phat = targets(), torch.softmax(logits, -1)
    torch.testing.assert_close(child_objective(logits, p), (p * torch.log(phat / p)).sum(1).mean())
    assert child_objective(logits, p) < 0
    assert child_objective(torch.log(p), p) == pytest.approx(0.0, abs=1e-15)


def test_parent_objective_is_minus_the_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    assert parent_objective(logits, torch.tensor([1])) == pytest.approx(-0.6931471805599453)


@pytest.mark.parametrize(
    ("kind", "expected"), [("f_norm", 4 + 9), ("l1", 2 + 3), ("cosine", 1 - 3 / 34**0.5)]
)
def test_distances_by_hand(kind: str, expected: float) -> None:
    """g = (1, 1), t = (-1, 4): g - t = (2, -3), g . t = 3, |g|^2 |t|^2 = 2 * 17."""
    g, t = torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 4.0]])
    assert float(distance(g, t, kind)) == pytest.approx(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_distances_are_those_of_autograd(kind: str) -> None:
    g = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = jacobian(lambda value: distance(value, parent_tangent(), kind), g)  # type: ignore[arg-type]
    torch.testing.assert_close(distance_gradient(g, parent_tangent(), kind), expected)  # type: ignore[arg-type]


def test_a_tangent_that_is_zero_has_no_direction() -> None:
    zero, other = torch.zeros(2, 3), torch.ones(2, 3)
    assert float(cosine(zero, other)) == 0.0
    for pair in ((zero, other), (other, zero)):
        assert torch.equal(distance_gradient(*pair, "cosine"), torch.zeros(2, 3))
