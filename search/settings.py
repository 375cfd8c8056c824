"""The base of all settings: an unknown key or a wrong type is an error, and values never change once read."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    ``strict`` is on, so ``"3"`` is no integer and ``1`` no boolean; an integer where a float is meant is fine. No
    number is infinite or NaN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
"""A name that stands in paths, in commands and in tables: letters, digits, ``_`` and ``-``, a letter or digit first."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""A seed that every generator in use takes: numpy's global one ends at 2^32, and offsets are added to ours."""
DataName = Annotated[str, Field(pattern=r"^[^\W_][\w .+-]*$", max_length=80)]
"""A data set's name in records and tables: letters of any script, digits, ``_``, ``.``, ``+``, ``-`` and spaces."""
FilePath = Annotated[str, Field(pattern=r"^[^\x00\r\n]+$", max_length=4096)]
"""A file or folder of the user's."""

# Bounds that no experiment reaches: beyond them a number is a slip of the keyboard.
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Images = Annotated[int, Field(ge=0, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=2**20)]
Workers = Annotated[int, Field(ge=0, le=256)]
Channels = Annotated[int, Field(ge=2, le=8192)]
Cells = Annotated[int, Field(ge=3, le=200)]
Pixels = Annotated[int, Field(ge=32, le=8192)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term of a loss, of a limit to a norm."""

Item = TypeVar("Item")


def _once(values: list[Item]) -> list[Item]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands twice")
    return values


Distinct = Annotated[list[Item], AfterValidator(_once), Field(max_length=1000)]
"""A list in which nothing stands twice."""


def _rising(steps: Any) -> Any:
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"{list(steps)} must be rising epochs")
    return steps


Rising = AfterValidator(_rising)
"""Epochs in rising order."""


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
