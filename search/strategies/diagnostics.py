"""What every method reports of its state, so that a search can be judged without its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.regression import kendall_rank_corrcoef

from search.genotype import Genotype, collapse

Scores = Sequence[dict[int, float]]
"""For each edge, a score of its operations by their index."""


def rank_correlation(earlier: Scores, later: Scores) -> float | None:
    """Mean over edges of Kendall's tau-b between two tables of scores; None where it is nowhere defined.

    An edge's operations that only one of the tables holds are left out.
    """
    taus = []
    for before, after in zip(earlier, later, strict=False):
        common = sorted(before.keys() & after.keys())
        first = torch.tensor([before[op] for op in common], dtype=torch.float64)
        second = torch.tensor([after[op] for op in common], dtype=torch.float64)
        if len(common) > 1 and len(first.unique()) > 1 and len(second.unique()) > 1:
            tau = kendall_rank_corrcoef(first, second)
            assert isinstance(tau, Tensor)
            taus.append(tau.item())
    return fmean(taus) if taus else None


def mean_share(shares: Sequence[float]) -> float | None:
    """Mean of what was measured; None where nothing was."""
    return fmean(shares) if shares else None


def entropy(alpha: Tensor) -> float:
    """Mean over all edges of the entropy of their mixing weights, in nats: ln 8 = 2.079 at equal weights."""
    return float(torch.special.entr(torch.softmax(alpha.detach().double(), dim=-1)).sum(-1).mean())


def margin(alpha: Tensor) -> float:
    """Mean over all edges of the distance between their two largest mixing weights, in [0, 1]."""
    first, second = torch.softmax(alpha.detach().double(), dim=-1).topk(2, dim=-1).values.unbind(-1)
    return float((first - second).mean())


def diagnose_alpha(alpha: Tensor, before: Tensor, genotype: Genotype) -> dict[str, Any]:
    """Columns of history.csv for a method with alphas.

    Args:
        alpha: (kinds of cell, edges, operations), now; minus infinity where an operation was dropped.
        before: The same after the epoch before.
        genotype: Derived from ``alpha`` as it stands.
    """
    found = collapse(genotype)
    return {
        "entropy": entropy(alpha),
        "mean_margin": margin(alpha),
        "tau": rank_correlation(_scores(before), _scores(alpha)),
        "parameter_free_share": found.parameter_free_share,
        "collapsed": int(found.collapsed),
    }


def _scores(alpha: Tensor) -> Scores:
    rows = alpha.detach().double().flatten(0, 1).tolist()
    return [{op: value for op, value in enumerate(row) if math.isfinite(value)} for row in rows]
