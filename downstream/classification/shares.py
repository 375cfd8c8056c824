"""What each term of a loss weighs: the norm of its gradient beside that of the data's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from search.processes import mean_over_processes

DATA = "data"
"""The term that the others are compared with: cross entropy, distillation and auxiliary head together."""


def gradient_shares(terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Norm of each weighted term's gradient over that of the data's, both in the parameters that the term reaches.

    One backward pass a term, so it is for one step an epoch. A term of 1e-5 of the gradient is decoration, one of 10
    is the training's real purpose; neither shows in the loss itself.

    Args:
        terms: Scalars with their graph, which stays; one of them is called :data:`DATA`.
        parameters: All that are trained.
    """
    gradients = {
        name: torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        for name, term in terms.items()
        if term.requires_grad
    }
    reference = gradients.pop(DATA)
    found = {}
    for name, gradient in gradients.items():
        both = [(g, r) for g, r in zip(gradient, reference, strict=True) if g is not None and r is not None]
        if both:
            ours, data = (_norm([pair[place] for pair in both]) for place in (0, 1))
            found[name] = float(ours / data) if data > 0 else float("inf")
    return found


def _norm(gradients: list[Tensor]) -> Tensor:
    """Of the global batch's gradient."""
    return mean_over_processes(torch.cat([gradient.flatten() for gradient in gradients])).norm()
