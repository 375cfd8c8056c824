"""The base of all settings: an unknown key or a wrong type is an error, and values never change once read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    ``strict`` is on, so ``"3"`` is no integer and ``1`` no boolean; an integer where a float is meant is fine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
