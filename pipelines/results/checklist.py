"""The best-practice checklists: a data file; answers that the run records can give are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.results.campaigns import searching_campaigns
from pipelines.results.groups import groups, read_back
from pipelines.results.records import Library
from pipelines.results.render import GENERATED, markdown_table
from pipelines.results.run import Run
from search.errors import InputError

FILE = Path(__file__).parent.parent / "checklist.yaml"
ANSWERS = ("yes", "partly", "no")
ENOUGH_SEEDS = 3
"""Fewer runs than this give no spread worth the name; the claims use the same bound."""
SUBJECTS = ("cp_nas", "dcp_nas")
"""The methods whose parts the papers take away one by one."""


@dataclass(frozen=True)
class Point:
    """One point: what is asked, the answer, and where it is satisfied or why not."""

    point: str
    answer: str
    where: str


@dataclass(frozen=True)
class Checklist:
    """A checklist with its source."""

    title: str
    source: str
    points: tuple[Point, ...]


def _retrainings(library: Library) -> list[Run]:
    return [record for record, _ in library.distinct("retrain")]


def _seeds(library: Library) -> tuple[str, str]:
    counts = [len(group) for group in groups(_retrainings(library))]
    enough = sum(count >= ENOUGH_SEEDS for count in counts)
    answer = "yes" if counts and enough == len(counts) else "partly" if enough else "no"
    return (
        answer,
        f"{enough} of {len(counts)} rows of the classification table have {ENOUGH_SEEDS} runs or more",
    )


def _random(library: Library) -> tuple[str, str]:
    searched = searching_campaigns(library)
    compared = {record.campaign for record in library.of("search") if record.family == "random"}
    held = [name for name in searched if name in compared]
    answer = "no" if not held else "yes" if held == searched else "partly"
    return answer, f"recorded in {len(held)} of {len(searched)} campaigns with searches of their own"


def _ablations(library: Library) -> tuple[str, str]:
    variants: dict[tuple[str, str], set[str]] = {}
    for record in library.of("search"):
        variants.setdefault((record.campaign, str(record.method)), set()).add(record.family)
    ablated = {key: found for key, found in variants.items() if len(found) > 1}
    if not ablated:
        return "no", "no campaign holds two variants of one method"
    answer = "yes" if {method for _, method in ablated} >= set(SUBJECTS) else "partly"
    words = [
        f"{len(found)} variants of {method} in {profile}" for (profile, method), found in ablated.items()
    ]
    return answer, ", ".join(words)


def _read_back(library: Library) -> tuple[str, str]:
    runs = _retrainings(library)
    found = read_back(runs, library)
    if found is None:
        return "no", f"of {len(runs)} retrainings none was read back from its exported weights"
    answer = "yes" if found.startswith(f"{len(runs)} of {len(runs)} exact") else "partly"
    return answer, f"retrainings read back from their exported weights: {found}"


COMPUTED: dict[str, Callable[[Library], tuple[str, str]]] = {
    "seeds": _seeds,
    "random": _random,
    "ablations": _ablations,
    "read_back": _read_back,
}


def read_checklists(library: Library, path: Path = FILE) -> list[Checklist]:
    """The checklists with every answer filled in.

    Raises:
        InputError: Naming the point whose answer is none of yes, partly, no.
    """
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Checklist(
            entry["title"], entry["source"], tuple(_point(point, library, path) for point in entry["points"])
        )
        for entry in data["checklists"]
    ]


def _point(entry: dict[str, Any], library: Library, path: Path) -> Point:
    where = entry["where"]
    if "computed" in entry:
        answer, found = COMPUTED[entry["computed"]](library)
        where = f"{found}; {where}"
    else:
        answer = entry["answer"]
    if answer not in ANSWERS:
        raise InputError(f"answer {answer!r} to {entry['point']!r}", where=path, allowed=", ".join(ANSWERS))
    return Point(
        entry["point"], answer, f"{where} ({', '.join(entry['files'])})" if entry["files"] else where
    )


def checklist_markdown(checklists: list[Checklist]) -> str:
    """The checklists as a Markdown page."""
    parts = ["# Checklists", f"<!-- {GENERATED} -->"]
    for checklist in checklists:
        rows = [[point.point, point.answer, point.where] for point in checklist.points]
        parts += [
            f"## {checklist.title}",
            checklist.source,
            markdown_table(["point", "answer", "where"], rows, [False] * 3),
        ]
    return "\n\n".join(parts) + "\n"
