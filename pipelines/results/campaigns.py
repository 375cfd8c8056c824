"""The order in which campaigns are shown, and the searches that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.results.records import Library
from pipelines.results.run import SearchRun


@dataclass(frozen=True)
class Searches:
    """The searches of one method or variant in one campaign.

    Attributes:
        records: All seeds.
        also: Further campaigns that hold copies of these searches and no other ones of the method.
    """

    records: tuple[SearchRun, ...]
    also: tuple[str, ...]

    @property
    def campaigns(self) -> str:
        """All campaigns they belong to, for a title."""
        return ", ".join((self.records[0].campaign, *self.also))


def campaign_order(library: Library) -> list[str]:
    """Campaigns as a reader should meet them.

    First those that retrained networks, since a search is judged by what its networks reach; among them, and among
    the others, those with the most searches that no other campaign holds; then by name.
    """
    retrained = {record.campaign for record in library.of("retrain")}
    own = [profiles[0] for _, profiles in library.distinct("search") if len(profiles) == 1]
    names = dict.fromkeys(record.campaign for record in library.runs)
    return sorted(names, key=lambda name: (name not in retrained, -own.count(name), name))


def in_order(library: Library) -> Library:
    """The same records, campaign by campaign in :func:`campaign_order`."""
    place = {name: number for number, name in enumerate(campaign_order(library))}
    return Library(tuple(sorted(library.runs, key=lambda record: place[record.campaign])))


def searches_once(library: Library) -> list[Searches]:
    """The searches by campaign and method or variant; a campaign that only holds copies of another's is named there."""
    found: dict[tuple[str, str], list[SearchRun]] = {}
    for record in in_order(library).of("search"):
        found.setdefault((record.campaign, record.family), []).append(record)
    once: list[Searches] = []
    for (profile, family), records in found.items():
        origin = _origin(records, family, once)
        if origin is None:
            once.append(Searches(tuple(records), ()))
        else:
            once[origin] = Searches(once[origin].records, (*once[origin].also, profile))
    return once


def _origin(records: Sequence[SearchRun], family: str, once: Sequence[Searches]) -> int | None:
    """The place of the searches that all these records are copies of."""
    wanted = {record.identity for record in records}
    for place, other in enumerate(once):
        if other.records[0].family == family and wanted <= {record.identity for record in other.records}:
            return place
    return None


def searching_campaigns(library: Library) -> list[str]:
    """The campaigns that do not merely hold copies of other campaigns' searches."""
    return list(dict.fromkeys(group.records[0].campaign for group in searches_once(library)))
