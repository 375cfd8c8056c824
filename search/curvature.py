"""Products with the Hessian in alpha, never formed: exact, Gauss-Newton, and rank one (4.33, 4.36-4.41).

All functions take alpha's dependence as a callable from alpha to the network's outputs, so that they can be
checked on any function. G is the objective that is maximised, minus a cross entropy or a KL divergence, so
its Hessian H_G is minus that of the loss.

A 1-bit network is no smooth function of alpha: its derivatives are straight-through (4.34, 4.35). Forward
mode must take the same ones as reverse mode; :func:`straight_through_tangents` gives sign its forward rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from search import exact
from search.binary import SignActivation, estimate

Curvature = Literal["ggn", "exact", "outer"]
Outputs = Callable[[Tensor], Tensor]
"""Alpha, of any shape, to logits (N, classes)."""


@contextmanager
def straight_through_tangents(network: nn.Module) -> Iterator[None]:
    """Within, sign passes forward-mode tangents by its gradient estimator: d sign(x) = estimate(dx, x).

    The forward-mode counterpart of the backward rule of :func:`search.binary.binarise`; the estimators
    multiply entry by entry, so the rule is the same in both directions. Reverse mode is not touched.
    """
    waiting: dict[SignActivation, tuple[Tensor, Tensor]] = {}

    def take_off(module: SignActivation, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        primal, tangent = forward_ad.unpack_dual(inputs[0])
        if tangent is None or module.precision != 1:
            return None
        waiting[module] = (primal, tangent)
        return (primal,)

    def put_on(module: SignActivation, inputs: Any, output: Tensor) -> Tensor:
        if module not in waiting:
            return output
        primal, tangent = waiting.pop(module)
        return forward_ad.make_dual(output, estimate(tangent, primal, module.estimator, module.window))

    signs = [module for module in network.modules() if isinstance(module, SignActivation)]
    handles = [module.register_forward_pre_hook(take_off) for module in signs]
    handles += [module.register_forward_hook(put_on) for module in signs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def jacobian_product(outputs: Outputs, alpha: Tensor, vector: Tensor) -> Tensor:
    """J v of the outputs in alpha, the outputs' shape: one forward-mode pass, nothing kept for backward."""
    with torch.no_grad(), forward_ad.dual_level():
        result = outputs(forward_ad.make_dual(alpha.detach(), vector))
        tangent = forward_ad.unpack_dual(result).tangent
    return torch.zeros_like(result) if tangent is None else tangent


def softmax_hessian_product(logits: Tensor, vector: Tensor) -> Tensor:
    """H_out u = (diag(p) - p p^T) u for each sample, p = softmax(logits).

    The Hessian in the logits of the cross entropy -log p_y of any label y, and of the KL divergence from any
    target distribution. Shapes (N, classes).
    """
    p = exact.softmax(logits, dim=-1)
    weighted = p * vector
    return weighted - p * weighted.sum(dim=-1, keepdim=True)


def hessian_product(gradient: Tensor, alpha: Tensor, vector: Tensor) -> Tensor:
    """H v by double backward; ``gradient`` is that of the objective in alpha and carries its graph.

    A 1-bit operation's second derivative is that of its gradient estimator: -2 sign(x) inside [-1, 1] for
    ``bireal``, 0 for ``ste`` and ``identity``.
    """
    if not gradient.requires_grad:
        return torch.zeros_like(alpha)
    (product,) = torch.autograd.grad(gradient, alpha, vector, materialize_grads=True, allow_unused=True)
    return product


def ggn_product(outputs: Outputs, alpha: Tensor, vector: Tensor, logits: Tensor | None = None) -> Tensor:
    """Generalised Gauss-Newton product (1/N) J^T H_out J v (4.36-4.41) of a mean cross entropy or KL.

    One forward-mode product u = J v, then one reverse-mode product J^T (H_out u). Symmetric and positive
    semi-definite; equal to the Fisher information E[grad log p grad log p^T], labels drawn from the model;
    equal to the Hessian where the outputs are linear in alpha.

    Args:
        outputs: Alpha to logits.
        alpha: Where; requires a gradient.
        vector: v, the shape of alpha.
        logits: ``outputs(alpha)`` with its graph, where it has been computed already.
    """
    if logits is None:
        logits = outputs(alpha)
    pushed = jacobian_product(outputs, alpha, vector).to(logits.dtype)
    weighted = softmax_hessian_product(logits.detach(), pushed) / len(logits)
    return torch.autograd.grad(logits, alpha, weighted)[0]


def outer_product(gradient: Tensor, vector: Tensor) -> Tensor:
    """g (g . v): the rank-one product of first-order gradients, summed over all entries of alpha."""
    return gradient * (gradient * vector).sum()


def objective_curvature(
    kind: Curvature, outputs: Outputs, alpha: Tensor, logits: Tensor, gradient: Tensor, vector: Tensor
) -> Tensor:
    """H_G v for the objective G = -(mean cross entropy or KL divergence), as used in (4.33).

    ``exact`` needs ``gradient`` = dG/dalpha with its graph. The two approximations estimate the Hessian of
    the loss -G, positive semi-definite, and so enter with a minus sign: E[d2 log p] = -E[d log p d log p^T]
    [derived].

    Args:
        kind: ``exact``, ``ggn`` or ``outer``.
        outputs: Alpha to logits.
        alpha: Where.
        logits: ``outputs(alpha)`` with its graph.
        gradient: dG/dalpha there.
        vector: v.
    """
    if kind == "exact":
        return hessian_product(gradient, alpha, vector)
    if kind == "ggn":
        return -ggn_product(outputs, alpha, vector, logits)
    return -outer_product(gradient, vector)


def agreement(
    outputs: Outputs,
    objective: Callable[[Tensor], Tensor],
    alpha: Tensor,
    vector: Tensor,
    average: Callable[[Tensor], Tensor] = lambda value: value,
) -> float:
    """Cosine of H_G v by Gauss-Newton and by exact second derivatives, as tables; 1 where the two agree in direction.

    For a 1-bit network the exact product differentiates the gradient estimators once more, the Gauss-Newton product
    takes them as they are: the two are different readings of a function that has no derivatives.

    Args:
        outputs: Alpha to logits.
        objective: Logits to G.
        alpha: Where.
        vector: v.
        average: Mean over processes.
    """
    logits = outputs(alpha)
    (gradient,) = torch.autograd.grad(objective(logits), alpha, create_graph=True)
    exact = average(hessian_product(gradient, alpha, vector).detach())
    approximate = average(-ggn_product(outputs, alpha, vector))
    return float(torch.nn.functional.cosine_similarity(exact.flatten(), approximate.flatten(), dim=0))
