"""The claims of the papers, decided from run records: supported, not supported, undecided or not run."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from pipelines.results.campaigns import campaign_order
from pipelines.results.columns import DATA_MARKS
from pipelines.results.level import REDUCED, level
from pipelines.results.pairing import TIME, Comparison, Measure, Pair, Scope, pairs_by_scope, times_at_hand
from pipelines.results.records import Library, Record
from pipelines.results.rows import unique
from pipelines.results.statistics import (
    Estimate,
    Rules,
    holm,
    paired_difference,
    paired_ratio,
    rank_correlation,
)
from search.settings import Settings

FILE = Path(__file__).parent.parent / "claims.yaml"
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_RUN = "supported", "not supported", "undecided", "not run"
ELSEWHERE = "tested on other data"
"""Level of a claim that was tested on a stand-in or on other data than the papers': nothing is reproduced by that."""
NO_TIME = "no time to compare: on a processor only processor time counts, and not every run recorded it whole"


class Claim(Settings):
    """A claim with the tests that must all hold."""

    id: str = Field(description="short name")
    claim: str = Field(description="what the paper says")
    source: str = Field(description="where it says so")
    statistic: str = Field(description="what decides it, in words")
    needs: str = Field(description="the runs it needs, in words")
    profile: str = Field(description="a profile that makes them")
    comparisons: list[Comparison] = Field(description="all must hold")


@dataclass
class Finding:
    """A comparison in one scope (a campaign and data set) with its outcome.

    Attributes:
        claim, comparison: What was tested.
        records: The runs that entered; none: not run.
        estimate: The effect.
        reason: Why the test could not be made though there are runs; empty where it could.
        p_holm: The corrected p value, filled in last.
    """

    claim: Claim
    comparison: Comparison
    records: list[Record]
    estimate: Estimate
    reason: str = ""
    p_holm: float | None = None

    def outcome(self, rules: Rules) -> str:
        """Supported or not only if the corrected test and the interval agree; otherwise undecided."""
        estimate, above = self.estimate, self.comparison.above
        if not self.records:
            return NOT_RUN
        if self.p_holm is None or self.p_holm >= rules.alpha or estimate.low is None or estimate.high is None:
            return UNDECIDED
        if estimate.low > above:
            return SUPPORTED
        return NOT_SUPPORTED if estimate.high < above else UNDECIDED


def read_claims(path: Path = FILE) -> tuple[Rules, list[Claim]]:
    """The rules of decision and the claims."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Rules(**data["rules"]), [Claim.model_validate(entry) for entry in data["claims"]]


def evaluate(library: Library, rules: Rules, claims: list[Claim]) -> list[list[Finding]]:
    """For each claim, and each scope it was tested in, the findings of all its comparisons."""
    tested = [findings for claim in claims for findings in _claim(claim, library, rules)]
    known = [finding for findings in tested for finding in findings if finding.estimate.p is not None]
    for finding, p in zip(
        known, holm([f.estimate.p for f in known if f.estimate.p is not None]), strict=True
    ):
        finding.p_holm = p
    return tested


def verdict(findings: list[Finding], rules: Rules) -> str:
    """All comparisons hold: supported; one is contradicted: not supported; one has no runs: not run."""
    outcomes = [finding.outcome(rules) for finding in findings]
    for one in (NOT_SUPPORTED, NOT_RUN, UNDECIDED):
        if one in outcomes:
            return one
    return SUPPORTED


def _claim(claim: Claim, library: Library, rules: Rules) -> list[list[Finding]]:
    arms = [arm for one in claim.comparisons for arm in (one.first, one.second) if arm]
    found = [pairs_by_scope(comparison, arms, library) for comparison in claim.comparisons]
    blocks = {scope[0] for scope in found[0]}
    scopes = {scope for scope in set().union(*found) if scope in found[0] or scope[0] not in blocks}
    return [
        [
            _finding(
                claim, comparison, pairs.get(scope) or _elsewhere(scope, comparison, claim, pairs), rules
            )
            for comparison, pairs in zip(claim.comparisons, found, strict=True)
        ]
        for scope in _ordered(scopes, found, library) or [()]
    ]


def _ordered(scopes: set[Scope], found: list[dict[Scope, list[Pair]]], library: Library) -> list[Scope]:
    """Scopes in the order in which the campaigns of their runs are shown."""
    order = campaign_order(library)

    def place(scope: Scope) -> tuple[int, Scope]:
        pairs = [pair for by_scope in found for pair in by_scope.get(scope, [])]
        return min(order.index(pair.first[0].profile) for pair in pairs), scope

    return sorted(scopes, key=place)


def _elsewhere(
    scope: Scope, comparison: Comparison, claim: Claim, found: dict[Scope, list[Pair]]
) -> list[Pair]:
    """The pairs of a test that measures something else than its claim's first one: those of the same searches."""
    if comparison.measure == claim.comparisons[0].measure:
        return []
    same = [pairs for other, pairs in found.items() if scope and other[0] == scope[0]]
    return same[0] if len(same) == 1 else []


def _finding(claim: Claim, comparison: Comparison, pairs: list[Pair], rules: Rules) -> Finding:
    records = [record for pair in pairs for side in (pair.first, pair.second) for record in side]
    if comparison.measure.metric == TIME and times_at_hand(records) is None:
        return Finding(claim, comparison, records, Estimate(0, None, None, None, None), NO_TIME)
    first = [_value(pair.first, comparison.measure) for pair in pairs]
    second = [_value(pair.second, comparison.against or comparison.measure) for pair in pairs]
    if comparison.against is not None:
        estimate = rank_correlation(first, second, rules, [pair.stratum for pair in pairs])
    elif comparison.ratio:
        estimate = paired_ratio(first, second, comparison.above, rules)
    else:
        estimate = paired_difference(first, second, comparison.above, rules)
    return Finding(claim, comparison, records, estimate)


def _value(records: list[Record], measure: Measure) -> float:
    """The mean over the runs of one side; times are at hand, as :func:`_finding` has checked."""
    times = times_at_hand(records) if measure.metric == TIME else None
    return statistics.fmean(times or [float(record.metrics[measure.metric]) for record in records])


CLAIM_COLUMNS = {
    "claim": "short name of the claim",
    "case": "1, 2, ...: the campaigns, data sets and settings it was tested in, each with its own verdict",
    "text": "what the paper says",
    "verdict": "supported / not supported / undecided / not run, for the whole claim in this campaign",
    "comparison": "one of the tests that must all hold; in brackets why it could not be made though there are runs",
    "outcome": "the outcome of this test alone",
    "n": "pairs (one a search seed); for a rank correlation networks with another one to compare with",
    "effect": "mean difference (accuracies in [0, 1]), geometric mean ratio, or Kendall's tau",
    "above": "the claim holds if the effect is above this",
    "low": "lower end of the bootstrap interval",
    "high": "upper end of the bootstrap interval",
    "p": "two-sided p value of the paired t-test, for a rank correlation of the permutation test of tau",
    "p_holm": "the same after Holm's correction over all tests of this table",
    "level": "what the runs may claim: reproduced, reproduced at reduced scale, or tested on other data, where a run "
    "used data of no paper or a stand-in: that reproduces nothing",
    "dataset": "data sets of the runs; (other data) no paper used it, (stand-in) it stands in for a paper's",
    "profile": "campaigns of the runs",
    "methods": "methods and variants whose runs entered",
    "statistic": "what decides the claim",
    "needs": "the runs it needs, and a profile that makes them",
    "source": "where the claim is printed",
}


def claim_rows(tested: list[list[Finding]], rules: Rules, library: Library) -> list[dict[str, Any]]:
    """Rows of claims.csv, one a comparison and case, in the order of claims.yaml."""
    rows = []
    cases: Counter[str] = Counter()
    for findings in tested:
        name = findings[0].claim.id
        cases[name] += 1
        shared = {"case": cases[name], "verdict": verdict(findings, rules)}
        rows += [_finding_row(finding, rules, library) | shared for finding in findings]
    return rows


def _finding_row(finding: Finding, rules: Rules, library: Library) -> dict[str, Any]:
    claim, estimate, records = finding.claim, finding.estimate, finding.records
    numbers = {"effect": estimate.value, "low": estimate.low, "high": estimate.high}
    row: dict[str, Any] = dict.fromkeys(CLAIM_COLUMNS)
    return (
        row
        | {
            "claim": claim.id,
            "text": claim.claim,
            "comparison": finding.comparison.name + (f" ({finding.reason})" if finding.reason else ""),
            "outcome": finding.outcome(rules),
            "n": estimate.n,
            "above": finding.comparison.above,
            "p": _rounded(estimate.p),
            "p_holm": _rounded(finding.p_holm),
            "level": _level(records, library) if records else None,
            "dataset": "; ".join(unique(dataset_label(record) for record in records)) or None,
            "profile": " ".join(unique(record.profile for record in records)) or None,
            "methods": "; ".join(unique(record.label for record in records)) or None,
            "statistic": claim.statistic,
            "needs": f"{claim.needs} (profile {claim.profile})",
            "source": claim.source,
        }
        | {key: _rounded(value) for key, value in numbers.items()}
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _level(records: list[Record], library: Library) -> str:
    """As in the tables, except that a claim which was tested on other data than the papers' is not reproduced."""
    found = level(records, library)
    elsewhere = any(record.data_kind != "paper" for record in records)
    return ELSEWHERE if found == REDUCED and elsewhere else found


def dataset_label(record: Record) -> str:
    """The data set's name, marked where it is a stand-in, or where no paper measured on it."""
    return f"{record.dataset['name']}{DATA_MARKS[record.data_kind]}"
