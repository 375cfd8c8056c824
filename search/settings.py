"""The base of all settings: an unknown key or a wrong type is an error, and values never change once read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    ``strict`` is on, so ``"3"`` is no integer and ``1`` no boolean; an integer where a float is meant is fine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
"""A name that stands in paths, in commands and in tables: letters, digits, ``_`` and ``-``, a letter or digit first."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""A seed that every generator in use takes: numpy's global one ends at 2^32, and offsets are added to ours."""


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` put into it, mapping by mapping; lists and single values are replaced.

    Examples:
        >>> merged({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"b": 3}, "d": [4]})
        {'a': {'b': 3, 'c': 2}, 'd': [4]}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
