"""The statistics and the claims that are decided by them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from pipelines.collect import collect
from pipelines.results.claims import (
    NOT_RUN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    claim_rows,
    evaluate,
    read_claims,
)
from pipelines.results.records import Library, read_records
from pipelines.results.statistics import (
    Rules,
    _tau,
    holm,
    mean_interval,
    paired_difference,
    paired_ratio,
    rank_correlation,
)
from search.files import read_json, write_json
from tests.pipelines.results_records import genotype, write_campaign, write_run, write_search

RULES = Rules(alpha=0.05, confidence=0.95, resamples=500, min_n=3, min_networks=5, permutations=20000)


def test_holm_golden() -> None:
    """Worked example: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_paired_difference_is_the_paired_t_test() -> None:
    """p and mean are SciPy's; the interval holds the mean; the order of the sides turns the sign."""
    first, second = [0.61, 0.63, 0.66, 0.60, 0.64], [0.55, 0.60, 0.61, 0.57, 0.58]
    found = paired_difference(first, second, 0.0, RULES)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.value == pytest.approx(np.mean(np.subtract(first, second)))
    assert found.low is not None and found.high is not None and found.low < 0.046 < found.high
    turned = paired_difference(second, first, 0.0, RULES)
    assert turned.value == pytest.approx(-0.046) and turned.high == pytest.approx(-found.low)
    assert paired_difference(first, second, 0.0, RULES) == found


def test_too_few_pairs_and_no_spread_are_no_evidence() -> None:
    """Two pairs give no p and no interval; three identical differences give p = 1, not p = 0."""
    few = paired_difference([0.6, 0.7], [0.5, 0.5], 0.0, RULES)
    assert (few.n, few.low, few.high, few.p) == (2, None, None, None) and few.value == pytest.approx(0.15)
    assert paired_difference([0.5, 0.6, 0.7], [0.25, 0.35, 0.45], 0.0, RULES).p == 1.0


def test_mean_interval_holds_the_mean_and_tests_nothing() -> None:
    """Between the smallest and the largest value; no interval from two values."""
    found = mean_interval([61.0, 63.0, 66.0, 60.0, 64.0], RULES)
    assert found.value == pytest.approx(62.8) and found.p is None
    assert found.low is not None and found.high is not None and 60 < found.low < 62.8 < found.high < 66
    assert mean_interval([61.0, 63.0], RULES).low is None


def test_ratio_is_a_geometric_mean() -> None:
    """sqrt(8 * 2) = 4; the interval is that of the logarithms."""
    assert paired_ratio([8.0, 2.0], [1.0, 1.0], 1.0, RULES).value == pytest.approx(4.0)
    found = paired_ratio([30.0, 28.0, 33.0], [3.0, 2.9, 3.0], 5.0, RULES)
    assert found.low is not None and 9 < found.low < found.value < 11.1  # type: ignore[operator]


def test_rank_correlation() -> None:
    """Tau is SciPy's, the permutation test approaches its exact p; a constant side has no order; too few have no p."""
    x, y = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.1, 0.3, 0.5, 0.4, 0.6]
    found = rank_correlation(x, y, RULES)
    expected = stats.kendalltau(x, y, method="exact")
    assert found.n == 6 and found.value == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.005)
    assert found.low is not None and found.high is not None and found.low < expected.statistic <= found.high
    constant = rank_correlation(x, [1.0] * 6, RULES)
    assert constant.value == 0.0 and constant.p == 1.0
    assert rank_correlation(x[:4], y[:4], RULES).p is None and rank_correlation(x[:4], y[:4], RULES).value
    assert rank_correlation(x[:1], y[:1], RULES).value is None
    assert rank_correlation(x, y, RULES) == found


def test_bootstrapped_tau_is_scipys() -> None:
    """The vectorised tau-b of the resamples, with ties, against SciPy's."""
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 4, (5, 7)).astype(float), draw.integers(0, 4, (5, 7)).astype(float)
    expected = [stats.kendalltau(one, two).statistic for one, two in zip(x, y, strict=True)]
    assert _tau(x, y, np.triu_indices(7, 1)) == pytest.approx(expected)


def test_networks_are_ranked_within_their_strata_only() -> None:
    """Three strata of 3, 3 and 1: S = 3 + 1 of 6 pairs; p from all 3! * 3! orders; a lone network does not count."""
    x, y = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 9.0], [5.0, 6.0, 7.0, 1.0, 3.0, 2.0, -9.0]
    found = rank_correlation(x, y, RULES, ["a"] * 3 + ["b"] * 3 + ["c"])
    assert found.n == 6 and found.value == pytest.approx(4 / 6)
    sums = [sum(map(_concordance, orders)) for orders in itertools.product(_orders(3), repeat=2)]
    exact = sum(abs(s) >= 4 for s in sums) / len(sums)
    assert found.p == pytest.approx(exact, abs=0.01)
    whole = rank_correlation(x, y, RULES)
    assert whole.n == 7 and whole.value is not None and whole.value < 0


def test_rank_test_holds_its_level_with_ties() -> None:
    """Of 300 unrelated samples with many ties, no more than about 5 % have p below 0.05."""
    rules = replace(RULES, permutations=400, resamples=10)
    draw = np.random.default_rng(0)
    strata = ["a"] * 4 + ["b"] * 4
    below = 0
    for _ in range(300):
        x, y = draw.integers(0, 3, (2, 8))
        p = rank_correlation(list(map(float, x)), list(map(float, y)), rules, strata).p
        below += p is not None and p < 0.05
    assert below <= stats.binom.ppf(0.999, 300, 0.05)


def _orders(n: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(n)))


def _concordance(order: tuple[int, ...]) -> int:
    return sum(1 if a < b else -1 for a, b in itertools.combinations(order, 2))


def _library(runs: Path, tmp_path: Path, profile: str = "quick") -> Library:
    collect(runs, tmp_path / "records", profile)
    return Library(tuple(read_records(tmp_path / "records")))


def _verdicts(library: Library) -> dict[str, str]:
    rules, claims = read_claims()
    return {row["claim"]: row["verdict"] for row in claim_rows(evaluate(library, rules, claims))}


def _set_accuracy(runs: Path, method: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        path = runs / f"retrain/cifar10/{method}-s{seed}-1bit-s0/metrics.json"
        write_json(path, {**read_json(path), "accuracy": value})


@pytest.mark.parametrize(
    ("ours", "seeds", "verdict"),
    [
        ([0.90, 0.91, 0.905, 0.90, 0.91], 5, SUPPORTED),
        ([0.10, 0.11, 0.105, 0.10, 0.11], 5, NOT_SUPPORTED),
        ([0.90, 0.20, 0.55, 0.45, 0.50], 5, UNDECIDED),
        ([0.90, 0.91], 2, UNDECIDED),
    ],
)
def test_verdict_follows_the_runs(tmp_path: Path, ours: list[float], seeds: int, verdict: str) -> None:
    """Clearly better, clearly worse, mixed, too few: four different runs, three verdicts."""
    runs = write_campaign(tmp_path / "runs", seeds)
    _set_accuracy(runs, "cp_nas", ours)
    _set_accuracy(runs, "random", [0.50, 0.51, 0.49, 0.50, 0.505][:seeds])
    found = _verdicts(_library(runs, tmp_path))
    assert found["cp-nas-over-random"] == verdict
    assert found["tangent-helps"] == NOT_RUN


def test_no_pair_is_not_run(tmp_path: Path) -> None:
    """Without the other method nothing is compared."""
    write_search(tmp_path / "runs", "cp_nas", 0)
    assert set(_verdicts(_library(tmp_path / "runs", tmp_path)).values()) == {NOT_RUN}


def _sweep(tmp_path: Path, beta: float, cells: int = 5) -> None:
    runs = tmp_path / f"runs-{beta}"
    for seed in range(3):
        found = genotype("cp_nas", seed)
        common = {"network": f"cp_nas-s{seed}", "method": "cp_nas", "found": found}
        write_run(
            runs,
            f"search/cp_nas-s{seed}",
            task="cifar10",
            seed=seed,
            **common,
            params={"space": {"cells": cells}, "method": {"cp_nas": {"beta_p": beta, "rounds": 1}}},
            metrics={"val_accuracy": 0.4, "epochs": 35, "images_seen": 1, "seconds": 1.0},
        )
        write_run(
            runs,
            f"retrain/cifar10/cp_nas-s{seed}-1bit-s0",
            task="cifar10",
            **common,
            metrics={
                "accuracy": 0.6 - 0.05 * abs(beta - 2) + 0.004 * seed * (beta + 1),
                "epochs": 3,
                "images_seen": 1,
                "seconds": 1.0,
            },
        )
    collect(runs, tmp_path / "records", f"beta-{beta:g}")


def test_variants_of_one_method_are_paired_across_campaigns(tmp_path: Path) -> None:
    """A sweep of beta_P is a campaign a value; they are compared only if nothing else differs."""
    for beta in (0.0, 2.0, 4.0):
        _sweep(tmp_path, beta)
    rules, claims = read_claims()
    library = Library(tuple(read_records(tmp_path / "records")))
    rows = [r for r in claim_rows(evaluate(library, rules, claims)) if r["claim"] == "beta-rises-then-falls"]
    assert [(row["n"], row["verdict"]) for row in rows] == [(3, SUPPORTED)] * 2
    assert rows[0]["effect"] == pytest.approx(0.108, abs=1e-4) and rows[0]["campaign"] == "beta-2 beta-0"
    _sweep(tmp_path, 4.0, cells=8)
    library = Library(tuple(read_records(tmp_path / "records")))
    assert _verdicts(library)["beta-rises-then-falls"] == NOT_RUN


def test_claims_name_settings_that_exist() -> None:
    """Every setting a claim varies is a field of that method's settings."""
    from search.methods import METHODS

    _, claims = read_claims()
    arms = [arm for claim in claims for test in claim.comparisons for arm in (test.first, test.second) if arm]
    for arm in arms:
        for key in arm.where:
            section, method, name = key.split(".")
            assert (section, method) == ("method", arm.method)
            assert name in METHODS[method].settings.model_fields
    assert sum(len(arm.where) for arm in arms) >= 4


def test_every_file_that_the_checklists_name_exists() -> None:
    root = Path(__file__).parents[2]
    checklists = yaml.safe_load((root / "pipelines" / "checklist.yaml").read_text(encoding="utf-8"))[
        "checklists"
    ]
    named = [name for entry in checklists for point in entry["points"] for name in point.get("files", [])]
    assert named
    assert [name for name in named if not (root / name).exists()] == []
