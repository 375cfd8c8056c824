"""Versions of the files that we write: one of an older version is lifted step by step, any other is refused.

Each kind of file lists its steps where its form is defined; ``steps[0]`` makes version 2 of version 1, and the newest
version is one more than there are steps. To change a form, append a step and keep a file of the old version in
``tests/golden/records``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from search.errors import InputError

KEY = "schema"
Step = Callable[[dict[str, Any]], dict[str, Any]]


def newest(steps: Sequence[Step]) -> int:
    """The version that is written today."""
    return len(steps) + 1


def upgrade(value: dict[str, Any], steps: Sequence[Step], where: object) -> dict[str, Any]:
    """A file's content in the newest version.

    Args:
        value: The content, its version under ``schema``.
        steps: What lifts version 1 to 2, 2 to 3, and so on.
        where: The file, for the error.

    Raises:
        InputError: If the version is missing, no whole number, or newer than this code.

    Examples:
        >>> upgrade({"schema": 1, "a": 2}, [lambda old: {"b": old["a"]}], "x.json")
        {'b': 2, 'schema': 2}
    """
    version = value.get(KEY)
    if type(version) is not int or not 1 <= version <= newest(steps):
        raise InputError(
            f"schema {version!r} is not a version that this code reads",
            where=where,
            allowed=" to ".join(dict.fromkeys(("1", str(newest(steps))))),
            mend="a newer file needs newer code",
        )
    for step in steps[version - 1 :]:
        value = step(value)
    return {**value, KEY: newest(steps)}
