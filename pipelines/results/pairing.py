"""Which runs a claim compares: the settings of a comparison, and the pairs of runs that it finds in the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from pipelines.results.records import Library
from pipelines.results.run import Run, settings_hash
from search.settings import Settings

Scope = tuple[str, ...]
"""What must be the same for two runs to be compared: first the searches' campaign or settings, then data and recipe."""
SEARCHED_KEY = "space.binary"
"""The setting that :attr:`Arm.searched` asks for."""
TIME = "seconds"
"""The metric that depends on the device, and on a processor on what else runs there, see :func:`times_at_hand`."""


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

    stage: Literal["search", "retrain", "detect", "reid"] = Field(description="the stage of the runs")
    metric: str = Field(description="its key in metrics.json; seconds: as times_at_hand says")
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


class Pair(NamedTuple):
    """The runs of both sides with one search seed, or of both measures of one network; their values are averaged.

    Attributes:
        first, second: The runs of each side.
        stratum: Of a rank correlation: only networks of one stratum are compared with each other.
    """

    first: list[Run]
    second: list[Run]
    stratum: str = ""


def pairs_by_scope(comparison: Comparison, arms: Sequence[Arm], library: Library) -> dict[Scope, list[Pair]]:
    """The pairs of a comparison in every scope that has any; ``arms``: all those of its claim."""
    if comparison.against is not None:
        return _networks(comparison.measure, comparison.against, library)
    assert comparison.first is not None and comparison.second is not None
    keys = {key for arm in arms for key in arm.where}
    cross = comparison.first.method != comparison.second.method
    if not cross and any(arm.searched for arm in arms):
        keys.add(SEARCHED_KEY)
    first, second = (
        _arm(arm, comparison.measure, library, tuple(sorted(keys)), cross)
        for arm in (comparison.first, comparison.second)
    )
    scopes: dict[Scope, list[Pair]] = {}
    for key in sorted(set(first) & set(second)):
        scopes.setdefault(key[0], []).append(Pair(first[key], second[key]))
    return scopes


def times_at_hand(records: Sequence[Run]) -> list[float] | None:
    """Times of searches that can be compared, in seconds; None where there are none.

    On a GPU the wall time. On a processor the processor time of the whole run, since wall time there grows with
    whatever else runs on the machine; only if every run has it from beginning to end: a run that was interrupted
    recorded that of its last process alone, which took less wall time than the run as a whole.
    """
    if all(record.provenance.gpu for record in records):
        return [float(record.metrics[TIME]) for record in records]
    times = [_processor_time(record) for record in records]
    return None if None in times else [time for time in times if time is not None]


def _processor_time(record: Run) -> float | None:
    known = record.provenance.cpu_seconds
    whole = record.provenance.wall_seconds >= record.metrics[TIME]
    return float(known) if known and whole else None


def _selected(measure: Measure, library: Library) -> list[Run]:
    return [
        record
        for record in library.of(measure.stage)
        if measure.task in (None, record.task)
        and measure.precision in (None, record.precision)
        and measure.metric in record.metrics
    ]


def _data(record: Run) -> Scope:
    return record.data.name, record.data.sha256


def _arm(
    arm: Arm, measure: Measure, library: Library, varied: tuple[str, ...], cross: bool
) -> dict[tuple[Scope, int], list[Run]]:
    """The runs of an arm by scope and search seed.

    Two methods are compared inside one campaign. Variants of one method may come from several campaigns, then
    everything but the varied settings must be the same, and times are compared on one device only.
    """
    base_only = not arm.where and (cross or arm.searched is None)
    found: dict[tuple[Scope, int], list[Run]] = {}
    for record in _selected(measure, library):
        if record.method != arm.method or (base_only and not record.is_base):
            continue
        search = record if record.stage == "search" else library.search_of(record)
        if search is None or search.search_seed is None or not _matches(arm, search):
            continue
        block = record.campaign if cross else settings_hash(search.params, varied)
        scope: Scope = (block, *_data(record))
        if measure.metric == TIME:
            scope = (*scope, record.provenance.hardware, str(record.provenance.processes))
        # Two methods have two search settings by nature; these must not keep them apart.
        if not (cross and record.stage == "search"):
            scope = (*scope, settings_hash(record.params, varied))
        found.setdefault((scope, search.search_seed), []).append(record)
    return found


def _matches(arm: Arm, search: Run) -> bool:
    if arm.searched not in (None, search.precision):
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

    Runs of one measure share data set and settings. What a search measures depends on its method, space and
    settings, which differ by nature: there each of them is a stratum.
    """
    sides = [_measured(measure, library) for measure in (first, second)]
    scopes: dict[Scope, list[Pair]] = {}
    for (profile, network), by_scope in sorted(sides[0].items()):
        others = sides[1].get((profile, network), {})
        for scope, records in sorted(by_scope.items()):
            for other, against in sorted(others.items()):
                stratum = records[0].settings if first.stage == "search" else ""
                scopes.setdefault((profile, *scope, *other), []).append(Pair(records, against, stratum))
    return scopes


def _measured(measure: Measure, library: Library) -> dict[tuple[str, str], dict[Scope, list[Run]]]:
    """The runs of a measure by campaign and network, and there by data set and settings."""
    found: dict[tuple[str, str], dict[Scope, list[Run]]] = {}
    for record in _selected(measure, library):
        settings = () if record.stage == "search" else (record.settings,)
        by_scope = found.setdefault((record.campaign, record.network), {})
        by_scope.setdefault((*_data(record), *settings), []).append(record)
    return found
