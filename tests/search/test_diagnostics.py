"""What searches report of their alphas, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from search.genotype import OPERATIONS, derive_from_alpha
from search.strategies.diagnostics import diagnose_alpha, entropy, margin, rank_correlation


def table(**scores: float) -> torch.Tensor:
    """Alphas (2, 14, 8) with these scores of operations on every edge, 0 for the others."""
    row = torch.zeros(len(OPERATIONS))
    for name, value in scores.items():
        row[OPERATIONS.index(name)] = value
    return row.expand(2, 14, -1).clone()


def test_equal_weights_have_the_largest_entropy_and_no_margin() -> None:
    assert entropy(table()) == pytest.approx(math.log(8))
    assert margin(table()) == 0.0
    assert entropy(table(skip_connect=100.0)) == pytest.approx(0.0, abs=1e-9)


def test_margin_of_two_operations() -> None:
    # weights proportional to 8, 4 and six times 1: 8/18 and 4/18
    alpha = table(sep_conv_3x3=math.log(8), sep_conv_5x5=math.log(4))
    assert margin(alpha) == pytest.approx(4 / 18)


def test_rank_correlation_counts_pairs() -> None:
    # of the three pairs of four common operations taken in order, one swapped: (5 - 1) / 6
    before, after = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 7: 9.0}, {0: 1.0, 1: 3.0, 2: 2.0, 3: 4.0}
    assert rank_correlation([before], [after]) == pytest.approx(4 / 6)
    assert rank_correlation([before], [{0: 1.0, 1: 1.0}]) is None


def test_the_genotype_of_the_alphas_is_diagnosed() -> None:
    alpha = table(skip_connect=5.0)
    normal, reduce = alpha.double().tolist()
    found = diagnose_alpha(alpha, alpha, derive_from_alpha(normal, reduce, name="g", source="test"))
    assert found["tau"] == pytest.approx(1.0)
    assert found["parameter_free_share"] == 1.0
    assert found["collapsed"] == 1
