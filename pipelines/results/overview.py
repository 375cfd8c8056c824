"""What the report says first: facts, and the table of campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipelines.results.claims import Case, dataset_label
from pipelines.results.column import Column, Row
from pipelines.results.groups import unique
from pipelines.results.level import level
from pipelines.results.pictures import Picture
from pipelines.results.records import Library
from pipelines.results.run import Run

NAMED = 3
"""Commits or devices named at the top; more are counted only."""


def facts(library: Library, cases: Sequence[Case]) -> list[tuple[str, str]]:
    """The facts at the top of the page: name and text."""
    runs = [run for run, _ in library.distinct()]
    verdicts = Counter(case.verdict for case in cases)
    return [
        ("Runs recorded", str(len(runs))),
        ("Searches", str(len(library.distinct("search")))),
        ("Campaigns", ", ".join(unique(run.campaign for run in runs))),
        ("Claims", ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))),
        ("Code", _few("commits", unique(run.provenance.commit for run in runs))),
        ("Devices", _few("devices", unique(run.provenance.hardware for run in runs))),
    ]


def _few(what: str, names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} {what}"


def _column(key: str, head: str = "", join: str = ", ", digits: int | None = None) -> Column:
    return Column(key, head=head or key, digits=digits, join=join, shown=lambda row: _text(row, key, join))


def _text(row: Row, key: str, join: str) -> str:
    value = row[key]
    return join.join(value) if isinstance(value, tuple) else str(value)


CAMPAIGN_COLUMNS = (
    _column("campaign"),
    _column("data sets"),
    _column("networks", digits=0),
    _column("searches", join=" + ", digits=0),
    _column("retrain", "retrained", digits=0),
    _column("detect", "detectors", digits=0),
    _column("reid", "re-id", digits=0),
    _column("hours", digits=1),
    _column("level"),
    _column("device", join="; "),
    _column("commit", join=" "),
)


def campaigns(library: Library) -> list[Row]:
    """A row a campaign: what it ran, on what, and for how long.

    A search that several campaigns share counts, with its hours, for the one that holds most runs; the others name it.
    """
    sizes = Counter(run.campaign for run in library.runs)
    homes = {run.identity: max(shared, key=lambda name: sizes[name]) for run, shared in library.distinct()}
    return [_campaign(library, name, homes) for name in unique(run.campaign for run in library.runs)]


def _campaign(library: Library, name: str, homes: dict[str, str]) -> Row:
    runs = [run for run in library.runs if run.campaign == name]
    own = [run for run in runs if homes[run.identity] == name]
    stages = Counter(run.stage for run in own)
    borrowed = Counter(
        homes[run.identity] for run in runs if run.stage == "search" and homes[run.identity] != name
    )
    searches = [str(stages["search"])] if stages["search"] or not borrowed else []
    measured: list[Run] = [run for run in runs if run.stage != "cost"]
    return {
        "campaign": name,
        "data sets": unique(dataset_label(run) for run in measured),
        "networks": len({run.network for run in runs}),
        "searches": (*searches, *(f"{count} of {home}" for home, count in borrowed.items())),
        **{stage: stages[stage] for stage in ("retrain", "detect", "reid")},
        "hours": f"{sum(run.provenance.wall_seconds for run in own) / 3600:.1f}",
        "level": unique(level([run], library) for run in measured),
        "device": unique(run.provenance.hardware for run in runs),
        "commit": unique(run.provenance.commit for run in runs),
    }


def largest_first(pictures: Sequence[Picture], library: Library) -> list[Picture]:
    """Figures of campaigns, the one with the most retrained networks first."""
    runs = Counter(run.campaign for run in library.of("retrain"))
    return sorted(pictures, key=lambda picture: -runs[picture.campaign])
