"""How much a number may claim, computed from its run records and never typed."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.results.records import Library
from pipelines.results.run import DetectRun, ReidRun, Run

CITED = "cited"
RE_EVALUATED = "re-evaluated"
REDUCED = "reproduced at reduced scale"
REPRODUCED = "reproduced"
MEANING = {
    CITED: "only the literature's number, nothing was run",
    RE_EVALUATED: "a published network or its weights, counted or evaluated here without training",
    REDUCED: "trained here, with less data, fewer epochs, a smaller network or on other data than the papers'",
    REPRODUCED: "trained here at the paper's scale on the paper's data set, from the search on",
}


def level(records: Iterable[Run], library: Library) -> str:
    """The level of a number that was computed from ``records``: the lowest of any run it rests on."""
    rows = list(records)
    if all(not _trained(record) for record in rows):
        return RE_EVALUATED
    return REPRODUCED if all(_full_scale(record, library) for record in rows) else REDUCED


def _trained(record: Run) -> bool:
    if record.stage == "cost":
        return record.method is not None  # the cost of a found network rests on its search
    return float(record.metrics.get("epochs", 1)) > 0


def _full_scale(record: Run, library: Library) -> bool:
    """Whether this run and all it was built on have the paper's scale and data; a missing one has not."""
    if not record.paper_scale or record.data_kind != "paper":
        return False
    if record.stage == "search":
        return True
    before: list[Run | None] = []
    if record.method:
        before.append(library.search_of(record))
    if isinstance(record, DetectRun | ReidRun):
        before.append(library.backbone_of(record))
    return all(other is not None and _full_scale(other, library) for other in before)
