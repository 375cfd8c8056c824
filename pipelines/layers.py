"""Profiles in layers: with ``base: OTHER`` a file holds only what differs from the profile OTHER, in turn based or not.

Mappings are merged, lists replaced. A layer's ``search.method`` replaces the base's as a whole, but an entry begins
with the settings of the base's entry of the same method, so that ``cp_nas_beta0: {method: cp_nas, beta_p: 0.0}`` is
enough. Where a list of networks is the word ``searched``, all networks that the profile searches are meant.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import settings_file
from search.errors import InputError, nearest
from search.settings import merged

if TYPE_CHECKING:
    from pipelines.params import Params

FOLDER = Path(__file__).parent / "profiles"
SEARCHED = "searched"


def names() -> list[str]:
    """Names of all profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a profile.

    Raises:
        InputError: If there is no such profile.
    """
    if name not in names():
        hint = nearest(str(name), names())
        raise InputError(
            f"no profile {name!r}" + (f", did you mean {hint!r}?" if hint else ""), allowed=", ".join(names())
        )
    return FOLDER / f"{name}.yaml"


def own(name: str) -> dict[str, Any]:
    """What a profile's file itself holds."""
    path = path_of(name)
    return copy.deepcopy(_read(path, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=256)
def _read(path: Path, _changed: int) -> dict[str, Any]:
    return settings_file.read(path)


def chain(name: str) -> list[str]:
    """A profile and its bases, the complete one last.

    Raises:
        InputError: If the bases lead back to where they began.
    """
    found = [name]
    while (base := own(found[-1]).get("base")) is not None:
        if base in found:
            raise InputError(
                f"its bases lead in a circle: {' -> '.join([*found, str(base)])}", where=path_of(name)
            )
        found.append(str(base))
    return found


def values_of(name: str) -> dict[str, Any]:
    """A profile's complete values, unchecked."""
    chain(name)
    return completed(own(name), path_of(name))


def completed(changes: dict[str, Any], where: Path) -> dict[str, Any]:
    """The values of a file that may have a base, put onto those of its base.

    Raises:
        InputError: If there is no such base, or the file does not fit onto it.
    """
    if changes.get("base") is None:
        return changes
    base = values_of(changes["base"])
    try:
        return _extended(base, {key: value for key, value in changes.items() if key != "base"})
    except (KeyError, TypeError, AttributeError):
        raise InputError("does not fit onto its base", where=where, mend="compare their keys") from None


def load(name: str) -> Params:
    """A profile's settings, checked."""
    from pipelines import params

    return params.check(values_of(name), path_of(name))


Key = tuple[str, ...]


def flat(values: dict[str, Any], above: Key = ()) -> dict[Key, Any]:
    """The values by their whole keys; a list is one value, and so is an empty mapping.

    Examples:
        >>> flat({"a": {"b": 1, "c": [2]}, "d": {}})
        {('a', 'b'): 1, ('a', 'c'): [2], ('d',): {}}
    """
    result: dict[Key, Any] = {}
    for name, value in values.items():
        key = (*above, str(name))
        result |= flat(value, key) if isinstance(value, dict) and value else {key: value}
    return result


def origins(name: str) -> dict[Key, str]:
    """The profile in whose file each value of a profile stands, by whole key."""
    values, here = flat(values_of(name)), flat(own(name))
    bases = chain(name)[1:]
    if not bases:
        return dict.fromkeys(values, name)
    above = origins(bases[0])
    return {key: name if key in here else above.get(_inherited(key, here), name) for key in values}


def _inherited(key: Key, here: dict[Key, Any]) -> Key:
    """The base's key behind a value: a variant of ``search.method`` begins as its method's entry."""
    if key[:2] != ("search", "method"):
        return key
    return (*key[:2], here.get((*key[:3], "method"), key[2]), *key[3:])


def _extended(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    values = merged(base, changes)
    search, runs = values["search"], values["runs"]
    if "method" in changes.get("search", {}):
        bases = base["search"]["method"]
        search["method"] = {
            variant: merged(bases.get(entry.get("method", variant), {}), entry)
            for variant, entry in changes["search"]["method"].items()
        }
    found = [f"{variant}-s{seed}" for variant in search["methods"] for seed in search["seeds"]]
    if runs["cost"] == SEARCHED:
        runs["cost"] = found
    for task in runs.values():
        if isinstance(task, dict) and task["networks"] == SEARCHED:
            task["networks"] = found
    return values
