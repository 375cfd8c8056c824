"""What the report says first: facts, campaigns, and the claims with their verdicts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipelines.results.claims import NOT_RUN, dataset_label
from pipelines.results.level import level
from pipelines.results.origin import commit, hardware
from pipelines.results.records import Library
from pipelines.results.rows import unique
from pipelines.results.views import Column

NAMED = 3
"""Commits or devices named at the top; more are counted only."""
Row = dict[str, Any]


def facts(library: Library, claims: list[Row]) -> list[tuple[str, str]]:
    """The facts at the top of the page, from all records and the rows of claims.csv: name and text."""
    records = [record for record, _ in library.distinct()]
    verdicts = Counter(claim["verdict"] for claim in claim_groups(claims))
    return [
        ("Runs recorded", str(len(records))),
        ("Searches", str(len(library.distinct("search")))),
        ("Campaigns", ", ".join(unique(record.profile for record in records))),
        ("Claims", ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))),
        ("Code", _few("commits", unique(commit(record.provenance) for record in records))),
        ("Devices", _few("devices", unique(hardware(record.provenance) for record in records))),
    ]


def _few(what: str, names: list[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} {what}"


def campaigns(library: Library) -> Row:
    """The table of campaigns, its ``columns`` and ``rows``: what each ran, on what, and for how long.

    A search that several campaigns share counts, with its hours, for the one that holds most runs; the others name it.
    """
    heads = ("campaign", "data sets", "networks", *("searches", "retrained", "detectors", "re-id"), "hours")
    columns = [Column(head, str, numeric=head not in heads[:2]) for head in heads]
    columns += [Column(head, str) for head in ("level", "device", "commit")]
    profiles = unique(record.profile for record in library.records)
    sizes = Counter(record.profile for record in library.records)
    homes = {
        record.identity: max(shared, key=lambda profile: sizes[profile])
        for record, shared in library.distinct()
    }
    return {"columns": columns, "rows": [_campaign(library, profile, homes) for profile in profiles]}


def _campaign(library: Library, profile: str, homes: dict[str, str]) -> list[str]:
    records = [record for record in library.records if record.profile == profile]
    own = [record for record in records if homes[record.identity] == profile]
    stages = Counter(record.stage for record in own)
    borrowed = Counter(homes[r.identity] for r in records if r.stage == "search" and r not in own)
    searches = [str(stages["search"])] if stages["search"] or not borrowed else []
    searches += [f"{count} of {home}" for home, count in borrowed.items()]
    measured = [record for record in records if record.stage != "cost"]
    hours = sum(float(record.provenance.get("wall_seconds", 0.0)) for record in own) / 3600
    return [
        profile,
        ", ".join(unique(dataset_label(record) for record in measured)),
        str(len({record.network for record in records})),
        " + ".join(searches),
        *(str(stages[stage]) for stage in ("retrain", "detect", "reid")),
        f"{hours:.1f}",
        ", ".join(unique(level([record], library) for record in measured)),
        "; ".join(unique(hardware(record.provenance) for record in records)),
        " ".join(unique(commit(record.provenance) for record in records)),
    ]


def largest_first(pictures: list[Row], library: Library) -> list[Row]:
    """Figures of campaigns, the one with the most retrained networks first."""
    runs = Counter(record.profile for record in library.of("retrain"))
    return sorted(pictures, key=lambda picture: -runs[picture["place"][0]])


def by_text(claims: list[Row]) -> list[Row]:
    """Claims with all their cases, one for each campaign, data set and method that can decide them."""
    found: dict[str, list[Row]] = {}
    for claim in claims:
        found.setdefault(claim["text"], []).append(claim)
    return [{**cases[0], "cases": cases} for cases in found.values()]


def claim_groups(rows: list[Row]) -> list[Row]:
    """Rows of claims.csv as one entry a claim and case, with its tests in words."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["claim"], row["case"]), []).append(row)
    return [_claim_group(group) for group in groups.values()]


def _claim_group(group: list[Row]) -> Row:
    first = group[0]
    parts = ("methods", "dataset", "profile", "level")
    where = " · ".join(
        ", ".join(found) for key in parts if (found := unique(row[key] for row in group if row[key]))
    )
    keys = ("text", "verdict", "statistic", "needs", "source")
    return {key: first[key] for key in keys} | {"where": where, "tests": [_test(row) for row in group]}


def _test(row: Row) -> str:
    if row["outcome"] == NOT_RUN:
        return f"{row['comparison']}: not run"
    effect = "none yet" if row["effect"] is None else f"{row['effect']:.4g}"
    bound = f"must be above {row['above']:g}"
    text = f"{row['comparison']}: {row['outcome']}, effect {effect} ({bound}), n {row['n']}"
    if row["low"] is None:
        return f"{text}, too few for an interval"
    return f"{text}, interval {row['low']:.4g} to {row['high']:.4g}, corrected p {row['p_holm']:.3g}"
