"""The search methods by name, and the variants of params.yaml: a method with its settings under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from search.errors import nearest
from search.settings import Distinct, Name, Seed, Settings, merged
from search.strategies.base import Context, SearchSpaceSettings, Strategy
from search.strategies.bnas import Bnas, BnasSettings
from search.strategies.cp_nas import CpNas, CpNasSettings
from search.strategies.darts import Darts, DartsSettings
from search.strategies.dcp_nas import DcpNas, DcpNasSettings
from search.strategies.local_search import LocalSearch, LocalSearchSettings
from search.strategies.pc_darts import PcDarts, PcDartsSettings
from search.strategies.random import RandomSearch, RandomSettings
from search.strategies.regularised_evolution import RegularisedEvolution, RegularisedEvolutionSettings


class Method(NamedTuple):
    """A search method: its class, made from a context and settings, and the model of these settings."""

    strategy: Callable[[Context, Any], Strategy]
    settings: type[Settings]


METHODS: dict[str, Method] = {
    "random": Method(RandomSearch, RandomSettings),
    "regularised_evolution": Method(RegularisedEvolution, RegularisedEvolutionSettings),
    "local_search": Method(LocalSearch, LocalSearchSettings),
    "cp_nas": Method(CpNas, CpNasSettings),
    "bnas": Method(Bnas, BnasSettings),
    "darts": Method(Darts, DartsSettings),
    "pc_darts": Method(PcDarts, PcDartsSettings),
    "dcp_nas": Method(DcpNas, DcpNasSettings),
}
"""Search methods by name; a new method is a file in :mod:`search.strategies`, a line here, and nothing else."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Names of variants: they stand in folder names, and with ``-s<seed>`` behind them in the names of networks."""
OWN_KEYS = ("method", "space")
"""Keys of a variant that are no settings of its method."""


class Variant(Settings):
    """A method with its settings under a name of its own; under the method's own name it is the base form.

    Attributes:
        method: A name of :data:`METHODS`.
        settings: The method's settings.
        space: Fields of ``search.space`` that differ for this variant, such as ``{binary: false}``.
    """

    method: str
    settings: SerializeAsAny[Settings]
    space: dict[str, Any] = {}


class SearchSettings(Settings):
    """The section ``search`` of params.yaml.

    Attributes:
        methods: Names of the variants to run; none: nothing is searched.
        seeds: One run of every variant for each seed.
        space: What all of them share.
        method: The variants by name. A name of :data:`METHODS` holds this method's settings; any other entry
            names its method by the key ``method``, and may change fields of the space by the key ``space``.
        checkpoint_seconds: At least this many seconds between two saved states (0: after every step).
    """

    methods: Distinct[Name]
    seeds: Distinct[Seed] = Field(min_length=1)
    space: SearchSpaceSettings
    method: dict[str, Variant]
    checkpoint_seconds: float = Field(ge=0, le=86_400)

    @field_validator("method", mode="before")
    @classmethod
    def _read(cls, entries: Any) -> Any:
        """Each entry's settings, by its method's own model."""
        if not isinstance(entries, dict):
            return entries
        return {name: _variant(str(name), entry) for name, entry in entries.items()}

    @model_validator(mode="after")
    def _spaces(self) -> SearchSettings:
        """Every variant's space is a proper one."""
        for name in self.method:
            try:
                self.space_of(name)
            except ValidationError as error:
                raise _relocated(error, "method", name, "space") from None
        return self

    def space_of(self, variant: str) -> SearchSpaceSettings:
        """The space that a variant searches: the shared one with the variant's changes."""
        changes = self.method[variant].space
        if not changes:
            return self.space
        return SearchSpaceSettings.model_validate(merged(self.space.model_dump(), changes))


def keys_of(name: str, entry: Any) -> list[str]:
    """The keys that an entry of ``search.method`` may have; none if its method is unknown."""
    method = entry.get("method", name) if isinstance(entry, dict) else name
    return [*METHODS[method].settings.model_fields, *OWN_KEYS] if method in METHODS else []


def _variant(name: str, entry: Any) -> Variant:
    if isinstance(entry, Variant):
        return entry
    if not isinstance(entry, dict):
        raise _refusal(entry, (name,), f"is {entry!r}, a mapping of settings was expected")
    if not NAME.fullmatch(name):
        raise _refusal(entry, (name,), "a variant's name has small letters, digits and _ only")
    method = entry.get("method", name)
    if not isinstance(method, str) or method not in METHODS:
        hint = nearest(str(method), METHODS)
        raise _refusal(
            entry,
            (name,),
            f"no search method {method!r}"
            + (f", did you mean {hint!r}?" if hint else "")
            + f"; a variant names its method by the key 'method', allowed: {', '.join(METHODS)}",
        )
    if name in METHODS and method != name:
        raise _refusal(entry, (name,), f"is the name of a method, it cannot stand for {method!r}")
    own = {key: value for key, value in entry.items() if key not in OWN_KEYS}
    try:
        settings = METHODS[method].settings.model_validate(own)
        return Variant(method=method, settings=settings, space=entry.get("space", {}))
    except ValidationError as error:
        raise _relocated(error, name) from None


def _refusal(value: Any, place: tuple[str, ...], message: str) -> ValidationError:
    kind = PydanticCustomError("value_error", "{message}", {"message": message})
    return ValidationError.from_exception_data(
        "search", [InitErrorDetails(type=kind, loc=place, input=value)]
    )


def _relocated(error: ValidationError, *place: str) -> ValidationError:
    """The same errors below a key, so that the reader is told the whole path."""
    lines = [
        InitErrorDetails(
            type=line["type"], loc=(*place, *line["loc"]), input=line["input"], ctx=line.get("ctx", {})
        )
        for line in error.errors()
    ]
    return ValidationError.from_exception_data("search", lines)
