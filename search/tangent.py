"""The tangents of Parent and Child, their distance D, and the Child's gradient in alphahat (4.29 to 4.33).

Both objectives are *maximised*, so that both tangents point to where their network gets better [derived]:
f^P is minus the Parent's cross entropy, G minus the KL divergence from the Parent's outputs to the Child's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from search import exact
from search.curvature import Curvature, Outputs, objective_curvature

Distance = Literal["f_norm", "l1", "cosine"]
Scaling = Literal["relative", "printed"]
"""What the weight of a term means: ``relative``, the norm of its gradient as a share of that of G; ``printed``, the
factor of the papers' sum, whose normalisation is not known [derived]."""


def parent_objective(logits: Tensor, labels: Tensor) -> Tensor:
    """f^P = minus the mean cross entropy (4.21): logits (N, classes), labels (N,), a scalar to maximise."""
    return -exact.cross_entropy(logits, labels)


def child_objective(logits: Tensor, probabilities: Tensor) -> Tensor:
    """G = (1/N) sum over samples of sum_n p_n log(phat_n / p_n): minus the mean KL divergence, never above 0.

    Args:
        logits: The Child's, (N, classes); phat is their softmax.
        probabilities: The Parent's p, (N, classes), constant.
    """
    return -F.kl_div(
        torch.log_softmax(logits.double(), dim=-1), probabilities.double(), reduction="batchmean"
    ).to(logits.dtype)


def tangent(objective: Tensor, alpha: Tensor) -> Tensor:
    """d f^P / d alpha (4.29), the shape of alpha."""
    return torch.autograd.grad(objective, alpha)[0]


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between two tables as vectors; 0 where one of them is 0."""
    return F.cosine_similarity(first.flatten(), second.flatten(), dim=0)


def distance(child: Tensor, parent: Tensor, kind: Distance) -> Tensor:
    """D: squared Frobenius norm of the tangents' difference (4.31), L1 norm, or one minus the cosine."""
    if kind == "f_norm":
        return (child - parent).square().sum()
    if kind == "l1":
        return (child - parent).abs().sum()
    return 1 - cosine(child, parent)


def distance_gradient(child: Tensor, parent: Tensor, kind: Distance) -> Tensor:
    """dD/dg at the Child's tangent g: 2 (g - t) for the squared norm, sign(g - t), or that of the cosine."""
    if kind == "f_norm":
        return 2 * (child - parent)
    if kind == "l1":
        return torch.sign(child - parent)
    norm, other = child.norm(), parent.norm()
    if norm == 0 or other == 0:
        return torch.zeros_like(child)
    return (cosine(child, parent) * child / norm - parent / other) / norm


@dataclass(frozen=True)
class ChildGradient:
    """The Child's step in alphahat and what it was made of.

    Attributes:
        gradient: d/dalphahat of -G + lambda D (4.33).
        tangent: dG/dalphahat.
        share: Norm of the second term over that of the first; None without a Parent's tangent.
        distance: D; None without a Parent's tangent.
        cosine: Cosine between the two tangents; None without a Parent's.
    """

    gradient: Tensor
    tangent: Tensor
    share: float | None
    distance: float | None
    cosine: float | None


def term_factor(weight: float, scaling: Scaling, term: Tensor, reference: Tensor) -> Tensor:
    """The factor of a term's gradient, a scalar.

    Args:
        weight: Of the settings.
        scaling: ``relative``: ``factor * |term| = weight * |reference|``, 0 where the term has no gradient;
            ``printed``: the weight itself.
        term: Norm of the term's gradient.
        reference: Norm of the gradient that it is compared with.
    """
    if scaling == "printed":
        return torch.full_like(term, weight)
    return torch.where(term > 0, weight * reference / term, torch.zeros_like(term))


def child_gradient(
    outputs: Outputs,
    objective: Callable[[Tensor], Tensor],
    alpha: Tensor,
    parent: Tensor | None,
    weight: float,
    scaling: Scaling,
    kind: Distance,
    curvature: Curvature,
    average: Callable[[Tensor], Tensor] = lambda value: value,
) -> ChildGradient:
    """The gradient of -G + lambda D in alphahat (4.33): -dG/dalphahat + lambda H_G dD/dg, g = dG/dalphahat.

    For the squared Frobenius norm dD/dg = 2 (g - t), which is (4.33) as printed. g is the tangent on the
    batch at hand [choice]; L_R does not depend on alphahat.

    Args:
        outputs: Alphahat to the Child's logits.
        objective: Logits to G.
        alpha: Alphahat, requires a gradient.
        parent: t, the Parent's tangent; None leaves D out, which is CP-NAS's objective.
        weight: Decides lambda.
        scaling: How; see :func:`term_factor`.
        kind: What D is.
        curvature: What H_G is; see :func:`search.curvature.objective_curvature`.
        average: Mean over processes; D compares the tangent of the whole batch.
    """
    logits = outputs(alpha)
    kept = parent is not None
    exact = kept and curvature == "exact"
    (tangent,) = torch.autograd.grad(objective(logits), alpha, create_graph=exact, retain_graph=kept)
    whole = average(tangent.detach())
    if parent is None:
        return ChildGradient(-whole, whole, None, None, None)
    direction = distance_gradient(whole, parent, kind)
    factor = whole if curvature == "outer" else tangent
    product = average(objective_curvature(curvature, outputs, alpha, logits, factor, direction).detach())
    term = term_factor(weight, scaling, product.norm(), whole.norm()) * product
    return ChildGradient(
        -whole + term,
        whole,
        float(term.norm() / whole.norm()) if whole.any() else 0.0,
        float(distance(whole, parent, kind)),
        float(cosine(whole, parent)),
    )
