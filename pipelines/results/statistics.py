"""The statistics behind the claims: bootstrap intervals, a paired test, Kendall's tau, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BOOTSTRAP_SEED = 0
"""Intervals are part of committed tables: the same records give the same digits."""
PERMUTATION_SEED = 1
ROUNDING = 1e-12
"""Two values of tau this close are equal."""


@dataclass(frozen=True)
class Estimate:
    """An effect with its uncertainty.

    Attributes:
        n: Number of pairs (for a rank correlation: of networks that can be compared with another one).
        value: Mean difference, geometric mean ratio, or tau; None without any pair.
        low, high: Bootstrap percentile interval; None below the least n.
        p: Two-sided p value against the threshold, before correction; None below the least n.
    """

    n: int
    value: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Rules:
    """How a claim is decided; the values stand at the head of claims.yaml.

    Attributes:
        alpha: Level of the corrected tests.
        confidence: Of the bootstrap intervals.
        resamples: Bootstrap samples of an interval.
        min_n: Least number of pairs of a difference or ratio.
        min_networks: Least number of networks of a rank correlation.
        permutations: Random orders that a rank correlation is compared with.
    """

    alpha: float
    confidence: float
    resamples: int
    min_n: int
    min_networks: int
    permutations: int


def paired_difference(
    first: Sequence[float], second: Sequence[float], above: float, rules: Rules
) -> Estimate:
    """Mean of ``first - second`` with a percentile bootstrap interval, t-tested against ``above``."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    if len(difference) < rules.min_n:
        return Estimate(
            len(difference), float(difference.mean()) if len(difference) else None, None, None, None
        )
    low, high = _bootstrap(difference, rules)
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


def rank_correlation(
    first: Sequence[float], second: Sequence[float], rules: Rules, strata: Sequence[str] | None = None
) -> Estimate:
    """Kendall's tau-b of two measurements of the same networks, over the pairs of networks of one stratum.

    Where one measurement means something else for every group of networks (a search's own accuracy for every
    method), the groups are strata: only networks of one stratum are compared, and their concordant minus discordant
    pairs are added up over the strata, as in the seasonal Kendall test (Hirsch et al. 1982). Values centred by
    stratum would not do: two networks' residuals of different strata have no order that the null hypothesis makes
    exchangeable. Under it, the second values of each stratum may stand in any order; the p value is the share of
    ``rules.permutations`` such random orders, and the order found, with a sum as far from 0. That is valid with ties
    and for any sizes of the strata, and approaches Kendall's exact p where there is one stratum. The interval
    resamples networks within their strata.

    Args:
        first, second: One value a network.
        rules: How it is decided; below ``min_networks`` networks with a partner in their stratum only tau is given.
        strata: The stratum of each network; all in one if left out.
    """
    groups = _strata(strata if strata is not None else [""] * len(first))
    x, y = np.asarray(first, float), np.asarray(second, float)
    n = sum(map(len, groups))
    if not n:
        return Estimate(0, None, None, None, None)
    value = float(_tau(x, y, _pairs(groups)))
    if n < rules.min_networks:
        return Estimate(n, value, None, None, None)
    every = np.arange(len(x))
    low, high = _tau_interval(x, y, groups, rules)
    draw = np.random.default_rng(PERMUTATION_SEED)
    orders = np.tile(every, (rules.permutations, 1))
    for group in groups:
        orders[:, group] = draw.permuted(orders[:, group], axis=1)
    far = np.abs(_tau(x, y[orders], _pairs(groups))) >= abs(value) - ROUNDING
    return Estimate(n, value, low, high, float((1 + far.sum()) / (1 + len(far))))


def _strata(names: Sequence[str]) -> list[np.ndarray]:
    """The places of each stratum's networks, of strata with at least two."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return [np.asarray(group) for _, group in sorted(found.items()) if len(group) > 1]


def _pairs(groups: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The places of both sides of every pair inside a stratum."""
    sides = [np.triu_indices(len(group), 1) for group in groups]
    left, right = (
        np.concatenate([group[side[end]] for group, side in zip(groups, sides, strict=True)])
        for end in (0, 1)
    )
    return left, right


def _tau(first: np.ndarray, second: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Kendall's tau-b over the pairs along the last axis, for all resamples at once; 0 where a side is constant."""
    one, two = (np.sign(side[..., pairs[0]] - side[..., pairs[1]]) for side in (first, second))
    size = np.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    return np.divide((one * two).sum(-1), size, out=np.zeros(size.shape), where=size > 0)


def _tau_interval(
    x: np.ndarray, y: np.ndarray, groups: Sequence[np.ndarray], rules: Rules
) -> tuple[float, float]:
    draw = np.random.default_rng(BOOTSTRAP_SEED)
    chosen = np.tile(np.arange(len(x)), (rules.resamples, 1))
    for group in groups:
        chosen[:, group] = draw.choice(group, (rules.resamples, len(group)))
    found = _tau(x[chosen], y[chosen], _pairs(groups))
    tail = (1 - rules.confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _bootstrap(values: np.ndarray, rules: Rules) -> tuple[float, float]:
    """Percentile interval of the mean."""
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=rules.resamples,
        confidence_level=rules.confidence,
        method="percentile",
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
