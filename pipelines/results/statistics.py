"""The statistics behind the claims: bootstrap intervals, a paired test, Kendall's tau, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

BOOTSTRAP_SEED = 0
"""Intervals are part of committed tables: the same records give the same digits."""


@dataclass(frozen=True)
class Estimate:
    """An effect with its uncertainty.

    Attributes:
        n: Number of pairs (or of networks, for a rank correlation).
        value: Mean difference, geometric mean ratio, or tau; None without any pair.
        low, high: Bootstrap percentile interval; None below ``min_n``.
        p: Two-sided p value against the threshold, before correction; None below ``min_n``.
    """

    n: int
    value: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Rules:
    """How a claim is decided; the values stand at the head of claims.yaml."""

    alpha: float
    confidence: float
    resamples: int
    min_n: int


def paired_difference(
    first: Sequence[float], second: Sequence[float], above: float, rules: Rules
) -> Estimate:
    """Mean of ``first - second`` with a percentile bootstrap interval, t-tested against ``above``."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    if len(difference) < rules.min_n:
        return Estimate(
            len(difference), float(difference.mean()) if len(difference) else None, None, None, None
        )
    low, high = _bootstrap((difference,), np.mean, rules)
    spread = float(difference.std())
    # Without any spread the test statistic is infinite: that is no evidence, it is a degenerate sample.
    p = float(stats.ttest_1samp(difference, above).pvalue) if spread > 1e-12 else 1.0
    return Estimate(len(difference), float(difference.mean()), low, high, p)


def mean_interval(values: Sequence[float], rules: Rules) -> Estimate:
    """The mean of a sample with its percentile bootstrap interval; there is nothing to test, hence no p value."""
    found = paired_difference(values, [0.0] * len(values), 0.0, rules)
    return Estimate(found.n, found.value, found.low, found.high, None)


def paired_ratio(first: Sequence[float], second: Sequence[float], above: float, rules: Rules) -> Estimate:
    """Geometric mean of ``first / second``: the paired difference of logarithms, against ``log(above)``."""
    logs = paired_difference([*map(math.log, first)], [*map(math.log, second)], math.log(above), rules)
    value, low, high = (None if x is None else math.exp(x) for x in (logs.value, logs.low, logs.high))
    return Estimate(logs.n, value, low, high, logs.p)


def rank_correlation(first: Sequence[float], second: Sequence[float], rules: Rules) -> Estimate:
    """Kendall's tau of two measurements of the same networks, bootstrapped over the networks."""
    if len(first) < 2:
        return Estimate(len(first), None, None, None, None)
    result = stats.kendalltau(first, second)
    value = _number(result.statistic, 0.0)
    if len(first) < rules.min_n:
        return Estimate(len(first), value, None, None, None)
    low, high = _bootstrap((np.asarray(first, float), np.asarray(second, float)), _tau, rules)
    return Estimate(len(first), value, low, high, _number(result.pvalue, 1.0))


def _tau(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    """Kendall's tau-b along the last axis, for all resamples at once; 0 where a side is constant."""
    one, two = (np.sign(side[..., :, None] - side[..., None, :]) for side in (first, second))
    size = np.sqrt((one**2).sum((-2, -1)) * (two**2).sum((-2, -1)))
    return np.divide((one * two).sum((-2, -1)), size, out=np.zeros_like(size), where=size > 0)


def _number(value: float, otherwise: float) -> float:
    """Tau is not a number when one side is constant: no order, hence no correlation."""
    return otherwise if math.isnan(value) else float(value)


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Any, rules: Rules) -> tuple[float, float]:
    result = stats.bootstrap(
        data,
        statistic,
        n_resamples=rules.resamples,
        confidence_level=rules.confidence,
        method="percentile",
        paired=len(data) > 1,
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several comparisons, in the order given.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = running
    return corrected
