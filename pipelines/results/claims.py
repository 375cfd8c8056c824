"""The claims of the papers, decided from run records: supported, not supported, undecided or not run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from pipelines.results.level import level
from pipelines.results.origin import hardware
from pipelines.results.records import Library, Record, settings_hash
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
Scope = tuple[str, ...]
"""What must be the same for two runs to be compared: first the searches' campaign or settings, then data and recipe."""
SEARCHED_KEY = "space.binary"
"""The setting that :attr:`Arm.searched` asks for."""
TIME = "seconds"
"""The metric that depends on the device."""


class Arm(Settings):
    """The runs of one side of a comparison.

    Without a condition they are those of the method's base form; ``where``, or ``searched`` in a comparison inside
    one method, chooses among the base form and all variants by the settings that were recorded.
    """

    method: str = Field(description="the search method")
    searched: Literal["1bit", "real"] | None = Field(default=None, description="what the search trained")
    where: dict[str, float | str | bool] = Field(
        default={}, description="settings of the search, by dotted key"
    )


class Measure(Settings):
    """A metric of a stage."""

    stage: str = Field(description="the stage of the runs")
    metric: str = Field(description="its key in metrics.json")
    task: str | None = Field(default=None, description="the task of the runs, any if left out")
    precision: Literal["1bit", "real"] | None = Field(default=None, description="precision of the runs")


class Comparison(Settings):
    """One test: a paired difference or ratio of two arms, or the rank correlation of two measures."""

    name: str = Field(description="what is compared, in words")
    measure: Measure = Field(description="what is measured")
    first: Arm | None = Field(default=None, description="the side that the claim says is larger")
    second: Arm | None = Field(default=None, description="the other side")
    against: Measure | None = Field(default=None, description="the other measure of a rank correlation")
    ratio: bool = Field(default=False, description="compare first / second instead of first - second")
    above: float = Field(default=0.0, description="the claim holds if the effect is above this")


class Claim(Settings):
    """A claim with the tests that must all hold."""

    id: str = Field(description="short name")
    claim: str = Field(description="what the paper says")
    source: str = Field(description="where it says so")
    statistic: str = Field(description="what decides it, in words")
    needs: str = Field(description="the runs it needs, in words")
    comparisons: list[Comparison] = Field(description="all must hold")


@dataclass
class Finding:
    """A comparison in one scope (a campaign and data set) with its outcome; ``p_holm`` is filled in last."""

    claim: Claim
    comparison: Comparison
    records: list[Record]
    estimate: Estimate
    p_holm: float | None = None

    def outcome(self, rules: Rules) -> str:
        """Supported or not only if the corrected test and the interval agree; otherwise undecided."""
        estimate, above = self.estimate, self.comparison.above
        if not estimate.n:
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
    found = [_by_scope(comparison, claim, library) for comparison in claim.comparisons]
    blocks = {scope[0] for scope in found[0]}
    scopes = sorted(scope for scope in set().union(*found) if scope in found[0] or scope[0] not in blocks)
    return [
        [
            _finding(
                claim, comparison, pairs.get(scope) or _elsewhere(scope, comparison, claim, pairs), rules
            )
            for comparison, pairs in zip(claim.comparisons, found, strict=True)
        ]
        for scope in scopes or [()]
    ]


Pair = tuple[list[Record], list[Record]]


def _elsewhere(
    scope: Scope, comparison: Comparison, claim: Claim, found: dict[Scope, list[Pair]]
) -> list[Pair]:
    """The pairs of a test that measures something else than its claim's first one: those of the same searches."""
    if comparison.measure == claim.comparisons[0].measure:
        return []
    same = [pairs for other, pairs in found.items() if scope and other[0] == scope[0]]
    return same[0] if len(same) == 1 else []


def _finding(claim: Claim, comparison: Comparison, pairs: list[Pair], rules: Rules) -> Finding:
    other = comparison.against or comparison.measure
    first = [_value(records, comparison.measure) for records, _ in pairs]
    second = [_value(records, other) for _, records in pairs]
    if comparison.against is not None:
        estimate = rank_correlation(first, second, rules)
    elif comparison.ratio:
        estimate = paired_ratio(first, second, comparison.above, rules)
    else:
        estimate = paired_difference(first, second, comparison.above, rules)
    records = [record for pair in pairs for side in pair for record in side]
    return Finding(claim, comparison, records, estimate)


def _value(records: list[Record], measure: Measure) -> float:
    return sum(float(record.metrics[measure.metric]) for record in records) / len(records)


def _by_scope(comparison: Comparison, claim: Claim, library: Library) -> dict[Scope, list[Pair]]:
    if comparison.against is not None:
        return _networks(comparison.measure, comparison.against, library)
    assert comparison.first is not None and comparison.second is not None
    arms = [arm for one in claim.comparisons for arm in (one.first, one.second) if arm]
    keys = {key for arm in arms for key in arm.where}
    cross = comparison.first.method != comparison.second.method
    if not cross and any(arm.searched for arm in arms):
        keys.add(SEARCHED_KEY)
    sides = [
        _arm(arm, comparison.measure, library, tuple(sorted(keys)), cross)
        for arm in (comparison.first, comparison.second)
    ]
    scopes: dict[Scope, list[Pair]] = {}
    for key in sorted(set(sides[0]) & set(sides[1])):
        scopes.setdefault(key[0], []).append((sides[0][key], sides[1][key]))
    return scopes


def _selected(measure: Measure, library: Library) -> list[Record]:
    return [
        record
        for record in library.of(measure.stage)
        if measure.task in (None, record.run["task"])
        and measure.precision in (None, record.run["precision"])
        and measure.metric in record.metrics
    ]


def _arm(
    arm: Arm, measure: Measure, library: Library, varied: tuple[str, ...], cross: bool
) -> dict[tuple[Scope, int], list[Record]]:
    """The runs of an arm by scope and search seed.

    Two methods are compared inside one campaign. Variants of one method may come from several campaigns, then
    everything but the varied settings must be the same, and times are compared on one device only.
    """
    base_only = not arm.where and (cross or arm.searched is None)
    found: dict[tuple[Scope, int], list[Record]] = {}
    for record in _selected(measure, library):
        if record.method != arm.method or (base_only and not record.is_base):
            continue
        search = record if record.stage == "search" else library.search_of(record)
        if search is None or search.search_seed is None or not _matches(arm, search):
            continue
        block = record.profile if cross else settings_hash(search.params, varied)
        data = record.dataset
        scope: Scope = (block, str(data["name"]), str(data.get("sha256")))
        if measure.metric == TIME:
            scope = (*scope, hardware(record.provenance))
        # Two methods have two search settings by nature; these must not keep them apart.
        if not (cross and record.stage == "search"):
            scope = (*scope, settings_hash(record.params, varied))
        found.setdefault((scope, search.search_seed), []).append(record)
    return found


def _matches(arm: Arm, search: Record) -> bool:
    if arm.searched not in (None, search.run["precision"]):
        return False
    return all(setting(search.params, key) == value for key, value in arm.where.items())


def setting(params: dict[str, Any], key: str) -> Any:
    """The value of a dotted key, or None."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _networks(first: Measure, second: Measure, library: Library) -> dict[Scope, list[Pair]]:
    """The networks that have both measures in one campaign, each with its runs.

    What a search measures means something else for every method and space: there each is a scope of its own.
    """
    own = first.stage == "search"
    sides = []
    for measure in (first, second):
        by_network: dict[tuple[Scope, str], list[Record]] = {}
        for record in _selected(measure, library):
            search = library.search_of(record) if own and record.stage != "search" else record
            if search is None:
                continue
            space = settings_hash(search.params.get("space", {})) if own else ""
            scope = (record.profile, str(record.method), space) if own else (record.profile,)
            by_network.setdefault((scope, record.network), []).append(record)
        sides.append(by_network)
    scopes: dict[Scope, list[Pair]] = {}
    for key in sorted(set(sides[0]) & set(sides[1])):
        scopes.setdefault(key[0], []).append((sides[0][key], sides[1][key]))
    return scopes


CLAIM_COLUMNS = {
    "claim": "short name of the claim",
    "case": "1, 2, ...: the campaigns, or methods of one, it was tested in, each with its own verdict",
    "text": "what the paper says",
    "verdict": "supported / not supported / undecided / not run, for the whole claim in this campaign",
    "comparison": "one of the tests that must all hold",
    "outcome": "the outcome of this test alone",
    "n": "pairs (one a search seed), or networks for a rank correlation",
    "effect": "mean difference (accuracies in [0, 1]), geometric mean ratio, or Kendall's tau",
    "above": "the claim holds if the effect is above this",
    "low": "lower end of the bootstrap interval",
    "high": "upper end of the bootstrap interval",
    "p": "two-sided p value of the paired t-test (or of tau)",
    "p_holm": "the same after Holm's correction over all tests of this table",
    "level": "what the runs may claim: reproduced, or reproduced at reduced scale",
    "dataset": "data sets of the runs; (stand-in) where one stands in for the paper's",
    "profile": "campaigns of the runs",
    "methods": "methods and variants whose runs entered",
    "statistic": "what decides the claim",
    "needs": "the runs it needs",
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
            "comparison": finding.comparison.name,
            "outcome": finding.outcome(rules),
            "n": estimate.n,
            "above": finding.comparison.above,
            "p": _rounded(estimate.p),
            "p_holm": _rounded(finding.p_holm),
            "level": level(records, library) if records else None,
            "dataset": "; ".join(unique(dataset_label(record) for record in records)) or None,
            "profile": " ".join(unique(record.profile for record in records)) or None,
            "methods": "; ".join(unique(record.label for record in records)) or None,
            "statistic": claim.statistic,
            "needs": claim.needs,
            "source": claim.source,
        }
        | {key: _rounded(value) for key, value in numbers.items()}
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def dataset_label(record: Record) -> str:
    """The data set's name, marked where it is a stand-in."""
    return f"{record.dataset['name']} (stand-in)" if record.stand_in else str(record.dataset["name"])
