"""Decoupled optimisation: backtracking of alpha against the operations' weight norms (4.42 to 4.53).

Plain alternation ignores that the weights depend on alpha. After the gradient step

    alpha^{t+1} = alpha^t - eta_1 dL/dalpha^t                                                   (4.42)

some operations are led back: alphatilde = alpha^{t+1} + eta psi o alpha^t for those m with
ranking(R(w_m)) > tau, and alphatilde = alpha^{t+1} for the others. psi stands for what contains dw/dalpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search.binary import quant_convs
from search.supernet import SuperCell, SuperEdge, Supernet

POOL_AREA = 9
"""Entries of a 3x3 pool's window."""
FIXED = {"none": 0.0, "skip_connect": 1.0, "max_pool_3x3": POOL_AREA**-2, "avg_pool_3x3": POOL_AREA**-2}
"""Mean square of the entries of an operation without weights, as the depthwise convolution it equals: the identity has
1, a pool 1 / (K_m K_m) everywhere [derived from the text's w_m = 1 / (K_m x K_m)], ``none`` 0."""


@torch.no_grad()
def operation_norms(network: Supernet) -> Tensor:
    """R(w_m) = ||w_m||_2^2 (4.53) a weight of every operation, mean over the cells of a kind [choice].

    The shape is alpha's: (kinds of cell, edges, operations), (2, 14, 8) in the papers' space.

    The weights are those the network multiplies by: w, or beta o b^w in a Child. As a sum R would follow the number
    of an operation's weights, which never changes: it is taken as a mean over them [derived: the text's
    normalisation of pools by K_m x K_m], so that training decides the order. See :data:`FIXED` for the others.
    """
    operations = network.space.operations
    rows: list[list[Tensor]] = [[] for _ in network.space.kinds]
    for cell in network.cells:
        assert isinstance(cell, SuperCell)
        kind = -1 if cell.plan.reduction else 0
        rows[kind].append(torch.stack([_edge_norms(edge, operations) for edge in cell.edges]))
    return torch.stack([torch.stack(tables).mean(dim=0) for tables in rows])


def _edge_norms(edge: nn.Module, operations: Sequence[str]) -> Tensor:
    assert isinstance(edge, SuperEdge)
    like = next(edge.parameters())
    return torch.stack(
        [_norm(name, operation, like) for name, operation in zip(operations, edge.operations, strict=True)]
    )


def _norm(name: str, operation: nn.Module, like: Tensor) -> Tensor:
    weights = [conv.weight_quantiser(conv.weight).flatten() for _, conv in quant_convs(operation)]
    if weights:
        return torch.cat(weights).square().mean()
    return like.new_tensor(FIXED[name])


def ranking(norms: Tensor) -> Tensor:
    """Rank of each operation by R among those of its edge, from 0 (the smallest) to 1 [derived].

    Shape (..., K) to (..., K): how many of the others are smaller, over K - 1; equals share the lower rank.
    """
    smaller = norms[..., None, :] < norms[..., :, None]
    return smaller.sum(dim=-1).to(norms.dtype) / (norms.shape[-1] - 1)


class Backtracking:
    """psi, one non-negative entry an edge, and the two updates that use it.

    The gradient in psi is as small as eta times alpha times that of alpha, 1e-8 and less at a search's start, and
    grows with alpha: a fixed learning rate leaves psi alone or throws it about. So (4.51) is taken with eta_psi over
    the gradient's root mean square, and eta_psi says how far psi moves in a step [choice].

    The gradient of L in psi is taken where L is next evaluated, at the backtracked alpha of the step before:
    the next batch's gradient in alphatilde times d alphatilde / d psi = eta alpha^t on the selected
    operations. So it costs no pass of its own [choice].

    Args:
        shape: Shape of alpha, (..., edges, operations).
        eta: Step of the backtracking; 0 is plain descent.
        eta_psi: Length of psi's step: root mean square over the edges.
        tau: Operations whose rank is above it are led back.
        start: First value of psi.
        device: Where alpha is.

    Attributes:
        psi: (..., edges).
        slope: d alphatilde / d psi of the last step, the shape of alpha; 0 on operations left alone.
        selected: Operations that the last step led back, the shape of alpha.
        share: Norm of the last step's backtracking over that of its descent; 0 before the first step.
    """

    def __init__(
        self,
        shape: torch.Size,
        eta: float,
        eta_psi: float,
        tau: float,
        start: float,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.eta, self.eta_psi, self.tau = eta, eta_psi, tau
        self.psi = torch.full(shape[:-1], float(start), device=device, dtype=dtype)
        self.slope = torch.zeros(shape, device=device, dtype=dtype)
        self.selected = torch.zeros(shape, device=device, dtype=torch.bool)
        self.share = 0.0

    @torch.no_grad()
    def step(self, alpha: Tensor, gradient: Tensor, ranks: Tensor, descend: Callable[[], None]) -> None:
        """Update psi, descend, backtrack.

        Args:
            alpha: Changed in place; holds alphatilde of the last step on entry and of this one on return.
            gradient: dL/dalpha at alpha.
            ranks: :func:`ranking` of the operations, the shape of alpha.
            descend: Takes the gradient step (4.42) on ``alpha``.
        """
        slope = (gradient * self.slope).sum(dim=-1)
        size = slope.square().mean().sqrt()
        if size > 0:
            self.psi = (self.psi - self.eta_psi * slope / size).abs()  # (4.51)
        before = alpha.detach().clone()
        descend()
        step = (alpha - before).norm()
        self.selected = ranks > self.tau
        self.slope = self.eta * self.selected * before
        alpha += self.psi[..., None] * self.slope
        self.share = float((self.psi[..., None] * self.slope).norm() / step) if step > 0 else 0.0

    def forget(self) -> None:
        """Alpha was replaced from outside: it no longer depends on psi."""
        self.slope = torch.zeros_like(self.slope)

    def state_dict(self) -> dict[str, Any]:
        """psi and what is known of the last step."""
        return {"psi": self.psi, "slope": self.slope, "selected": self.selected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self.psi, self.slope = state["psi"].to(self.psi), state["slope"].to(self.slope)
        self.selected = state["selected"].to(self.selected)
