"""Derivatives of a layer's plain twin, for what its kernels do not give: second ones, and tangents of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Maybe = Tensor | None


def affine_gradients(affine: Tensor, gamma: Maybe) -> tuple[Maybe, Maybe]:
    """Gradients of gamma and bias from (2, C); None where the norm has no affine part."""
    return (affine[0], affine[1]) if gamma is not None else (None, None)


def gradients_again(
    function: Callable[..., Tensor], inputs: Sequence[Maybe], gradient: Tensor
) -> list[Maybe]:
    """The gradients of ``function`` at ``inputs``, themselves differentiable."""
    with torch.enable_grad():
        result = function(*inputs)
    wanted = {k: value for k, value in enumerate(inputs) if value is not None and value.requires_grad}
    found = torch.autograd.grad(result, list(wanted.values()), gradient, create_graph=True)
    gradients: list[Maybe] = [None] * len(inputs)
    for k, value in zip(wanted, found, strict=True):
        gradients[k] = value
    return gradients


def pushed(function: Callable[..., Tensor], inputs: Sequence[Maybe], tangents: Sequence[Maybe]) -> Tensor:
    """The tangent of ``function``, by two reverse passes: for tangents that no search takes."""
    with torch.enable_grad():
        leaves = [
            value.detach().requires_grad_() if value is not None and value.is_floating_point() else value
            for value in inputs
        ]
        result = function(*leaves)
        dummy = torch.zeros_like(result, requires_grad=True)
        pairs = [(x, t) for x, t in zip(leaves, tangents, strict=True) if x is not None and t is not None]
        pulled = torch.autograd.grad(result, [x for x, _ in pairs], dummy, create_graph=True)
        return torch.autograd.grad(pulled, dummy, [t for _, t in pairs])[0]
