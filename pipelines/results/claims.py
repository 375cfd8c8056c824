"""The claims of the papers, decided from run records: supported, not supported, undecided or not run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from pipelines.results.campaigns import campaign_order
from pipelines.results.column import DATA_MARKS, Column, Row
from pipelines.results.groups import unique
from pipelines.results.level import REDUCED, level
from pipelines.results.metrics import METRICS
from pipelines.results.pairing import TIME, Comparison, Measure, Pair, Scope, pairs_by_scope, times_at_hand
from pipelines.results.records import Library
from pipelines.results.run import Run
from pipelines.results.statistics import (
    Estimate,
    Rules,
    holm,
    paired_difference,
    paired_ratio,
    rank_correlation,
)
from search.errors import InputError
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
        comparison: What was tested.
        runs: Those that entered; none: not run.
        estimate: The effect.
        rules: How it is decided.
        library: All runs.
        reason: Why the test could not be made though there are runs; empty where it could.
        p_holm: The corrected p value, filled in last.
    """

    comparison: Comparison
    runs: list[Run]
    estimate: Estimate
    rules: Rules
    library: Library
    reason: str = ""
    p_holm: float | None = None

    @property
    def outcome(self) -> str:
        """Supported or not only if the corrected test and the interval agree; otherwise undecided."""
        estimate, above = self.estimate, self.comparison.above
        if not self.runs:
            return NOT_RUN
        unsure = self.p_holm is None or self.p_holm >= self.rules.alpha
        if unsure or estimate.low is None or estimate.high is None:
            return UNDECIDED
        if estimate.low > above:
            return SUPPORTED
        return NOT_SUPPORTED if estimate.high < above else UNDECIDED

    @property
    def name(self) -> str:
        """What was compared, and why that could not be where there is a reason."""
        return self.comparison.name + (f" ({self.reason})" if self.reason else "")

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods and variants whose runs entered."""
        return unique(run.label for run in self.runs)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets of the runs, marked where no paper used them."""
        return unique(dataset_label(run) for run in self.runs)

    @property
    def campaigns(self) -> tuple[str, ...]:
        """Campaigns of the runs."""
        return unique(run.campaign for run in self.runs)

    @property
    def level(self) -> str | None:
        """As in the tables, except that what was tested on other data than the papers' is not reproduced."""
        if not self.runs:
            return None
        found = level(self.runs, self.library)
        elsewhere = any(run.data_kind != "paper" for run in self.runs)
        return ELSEWHERE if found == REDUCED and elsewhere else found

    @property
    def words(self) -> str:
        """The test and what came out, in one line."""
        if not self.runs:
            return f"{self.name}: not run"
        value, low, high, p = self.rounded
        effect = "none yet" if value is None else f"{value:.4g}"
        bound = f"must be above {self.comparison.above:g}"
        text = f"{self.name}: {self.outcome}, effect {effect} ({bound}), n {self.estimate.n}"
        if low is None:
            return f"{text}, too few for an interval"
        return f"{text}, interval {low:.4g} to {high:.4g}, corrected p {p:.3g}"

    @property
    def rounded(self) -> tuple[float | None, ...]:
        """Effect, both ends of its interval and corrected p, as claims.csv gives them."""
        found = self.estimate
        return tuple(map(_rounded, (found.value, found.low, found.high, self.p_holm)))


@dataclass
class Case:
    """A claim where it was tested: its campaigns, data sets and settings, with a verdict of its own."""

    claim: Claim
    findings: list[Finding]
    number: int = 1

    @property
    def verdict(self) -> str:
        """All comparisons hold: supported; one is contradicted: not supported; one has no runs: not run."""
        outcomes = [finding.outcome for finding in self.findings]
        return next((one for one in (NOT_SUPPORTED, NOT_RUN, UNDECIDED) if one in outcomes), SUPPORTED)

    @cached_property
    def where(self) -> str:
        """Methods, data, campaigns and level of the runs, for the reader."""
        every = self.findings
        parts = (
            unique("; ".join(finding.methods) for finding in every),
            unique("; ".join(finding.datasets) for finding in every),
            unique(" ".join(finding.campaigns) for finding in every),
            unique(finding.level or "" for finding in every),
        )
        return " · ".join(words for part in parts if (words := ", ".join(filter(None, part))))

    @property
    def tests(self) -> list[str]:
        """Every test in words."""
        return [finding.words for finding in self.findings]

    @property
    def needs(self) -> str:
        """The runs it needs, and a profile that makes them."""
        return f"{self.claim.needs} (profile {self.claim.profile})"


def read_claims(path: Path = FILE) -> tuple[Rules, list[Claim]]:
    """The rules of decision and the claims.

    Raises:
        InputError: If a claim measures what no record holds.
    """
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    claims = [Claim.model_validate(entry) for entry in data["claims"]]
    for claim in claims:
        for measure in (m for test in claim.comparisons for m in (test.measure, test.against) if m):
            if measure.metric not in METRICS:
                raise InputError(f"unknown metric {measure.metric!r}", where=f"{path.name}, {claim.id}")
    return Rules(**data["rules"]), claims


def evaluate(library: Library, rules: Rules, claims: Sequence[Claim]) -> list[Case]:
    """Every claim in each scope that it was tested in, in the order of the claims."""
    cases = [case for claim in claims for case in _cases(claim, library, rules)]
    known = [(f, f.estimate.p) for case in cases for f in case.findings if f.estimate.p is not None]
    for (finding, _), p in zip(known, holm([p for _, p in known]), strict=True):
        finding.p_holm = p
    return cases


def _cases(claim: Claim, library: Library, rules: Rules) -> list[Case]:
    arms = [arm for one in claim.comparisons for arm in (one.first, one.second) if arm]
    found = [pairs_by_scope(comparison, arms, library) for comparison in claim.comparisons]
    blocks = {scope[0] for scope in found[0]}
    scopes = {scope for scope in set().union(*found) if scope in found[0] or scope[0] not in blocks}
    cases = []
    for number, scope in enumerate(_ordered(scopes, found, library) or [()], 1):
        findings = []
        for comparison, pairs in zip(claim.comparisons, found, strict=True):
            here = pairs.get(scope) or _elsewhere(scope, comparison, claim, pairs)
            findings.append(_finding(comparison, here, rules, library))
        cases.append(Case(claim, findings, number))
    return cases


def _ordered(scopes: set[Scope], found: list[dict[Scope, list[Pair]]], library: Library) -> list[Scope]:
    """Scopes in the order in which the campaigns of their runs are shown."""
    order = campaign_order(library)

    def place(scope: Scope) -> tuple[int, Scope]:
        pairs = [pair for by_scope in found for pair in by_scope.get(scope, [])]
        return min(order.index(pair.first[0].campaign) for pair in pairs), scope

    return sorted(scopes, key=place)


def _elsewhere(
    scope: Scope, comparison: Comparison, claim: Claim, found: dict[Scope, list[Pair]]
) -> list[Pair]:
    """The pairs of a test that measures something else than its claim's first one: those of the same searches."""
    if comparison.measure == claim.comparisons[0].measure:
        return []
    same = [pairs for other, pairs in found.items() if scope and other[0] == scope[0]]
    return same[0] if len(same) == 1 else []


def _finding(comparison: Comparison, pairs: list[Pair], rules: Rules, library: Library) -> Finding:
    runs = [run for pair in pairs for side in (pair.first, pair.second) for run in side]
    if comparison.measure.metric == TIME and times_at_hand(runs) is None:
        return Finding(comparison, runs, Estimate(0, None, None, None, None), rules, library, NO_TIME)
    first = [_value(pair.first, comparison.measure) for pair in pairs]
    second = [_value(pair.second, comparison.against or comparison.measure) for pair in pairs]
    if comparison.against is not None:
        estimate = rank_correlation(first, second, rules, [pair.stratum for pair in pairs])
    else:
        paired = paired_ratio if comparison.ratio else paired_difference
        estimate = paired(first, second, comparison.above, rules)
    return Finding(comparison, runs, estimate, rules, library)


def _value(runs: list[Run], measure: Measure) -> float:
    """The mean over the runs of one side; times are at hand, as :func:`_finding` has checked."""
    times = times_at_hand(runs) if measure.metric == TIME else None
    return statistics.fmean(times or [float(run.metrics[measure.metric]) for run in runs])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def dataset_label(run: Run) -> str:
    """The data set's name, marked where it is a stand-in, or where no paper measured on it."""
    return f"{run.data.name}{DATA_MARKS[run.data_kind]}"


def _of(key: str, doc: str, value: Callable[[Case, Finding], Any], join: str = " ") -> Column:
    return Column(key, doc, lambda pair: value(*pair), join=join)


# fmt: off
COLUMNS = (
    _of("claim", "short name of the claim", lambda case, _: case.claim.id),
    _of("case", "1, 2, ...: the campaigns, data sets and settings it was tested in, each with its own verdict",
        lambda case, _: case.number),
    _of("text", "what the paper says", lambda case, _: case.claim.claim),
    _of("verdict", "supported / not supported / undecided / not run, for the whole claim in this campaign",
        lambda case, _: case.verdict),
    _of("comparison",
        "one of the tests that must all hold; in brackets why it could not be made though there are runs",
        lambda _, found: found.name),
    _of("outcome", "the outcome of this test alone", lambda _, found: found.outcome),
    _of("n", "pairs (one a search seed); for a rank correlation networks with another one to compare with",
        lambda _, found: found.estimate.n),
    _of("effect", "mean difference (accuracies in [0, 1]), geometric mean ratio, or Kendall's tau",
        lambda _, found: found.rounded[0]),
    _of("above", "the claim holds if the effect is above this", lambda _, found: found.comparison.above),
    _of("low", "lower end of the bootstrap interval", lambda _, found: found.rounded[1]),
    _of("high", "upper end of the bootstrap interval", lambda _, found: found.rounded[2]),
    _of("p", "two-sided p value of the paired t-test, for a rank correlation of the permutation test of tau",
        lambda _, found: _rounded(found.estimate.p)),
    _of("p_holm", "the same after Holm's correction over all tests of this table",
        lambda _, found: found.rounded[3]),
    _of("level",
        "what the runs may claim: reproduced, reproduced at reduced scale, or tested on other data, where a "
        "run used data of no paper or a stand-in: that reproduces nothing", lambda _, found: found.level),
    _of("dataset",
        "data sets of the runs; (other data) no paper used it, (stand-in) it stands in for a paper's",
        lambda _, found: found.datasets or None, "; "),
    _of("campaign", "campaigns of the runs", lambda _, found: found.campaigns or None),
    _of("methods", "methods and variants whose runs entered", lambda _, found: found.methods or None, "; "),
    _of("statistic", "what decides the claim", lambda case, _: case.claim.statistic),
    _of("needs", "the runs it needs, and a profile that makes them", lambda case, _: case.needs),
    _of("source", "where the claim is printed", lambda case, _: case.claim.source),
)
# fmt: on


def claim_rows(cases: Sequence[Case]) -> list[Row]:
    """Rows of claims.csv, one a comparison and case, in the order of claims.yaml."""
    rows = []
    for case in cases:
        for finding in case.findings:
            row = {column.key: column.value((case, finding)) for column in COLUMNS if column.value}
            rows.append({column.key: column.cell(row) for column in COLUMNS})
    return rows


@dataclass(frozen=True)
class Tested:
    """A claim as it is read, with all its cases: one for each campaign, data set and method that can decide it."""

    claim: Claim
    cases: list[Case]

    @property
    def was_run(self) -> bool:
        """Whether any case has runs."""
        return any(case.verdict != NOT_RUN for case in self.cases)

    @property
    def decided(self) -> bool:
        """Whether any case has a verdict."""
        return any(case.verdict in (SUPPORTED, NOT_SUPPORTED) for case in self.cases)

    @property
    def verdicts(self) -> list[tuple[str, int]]:
        """Each verdict with how many cases have it."""
        return sorted(Counter(case.verdict for case in self.cases).items())


def by_claim(cases: Sequence[Case]) -> list[Tested]:
    """The claims with their cases."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.claim.claim, []).append(case)
    return [Tested(cases[0].claim, cases) for cases in found.values()]
