"""From the files of a run to a typed one: versions lifted, everything checked, what is wrong in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.results.defaults import as_run
from pipelines.results.run import FILES, RUN_FILE, STAGES, AnyRun, Run
from search.errors import InputError
from search.versions import Step, newest, upgrade

_RUN: TypeAdapter[Run] = TypeAdapter(AnyRun)


def variant_of(run: Mapping[str, Any]) -> str | None:
    """The method's variant, from a found network's name ``<variant>-s<seed>``; the method's own name: its base form."""
    method = run["method"]
    return None if method is None else str(run["network"]).partition("--")[0].rpartition("-s")[0] or method


def _second(run: dict[str, Any]) -> dict[str, Any]:
    """Version 2 names the variant in every kind, gives hand-made networks no form, and settings as they took effect."""
    form = run["form"] if run["genotype_hash"] else None
    params = as_run(run["params"], run)
    return run | {"variant": run.get("variant") or variant_of(run), "form": form, "params": params}


STEPS: tuple[Step, ...] = (_second,)
NETWORK_STEPS: tuple[Step, ...] = ()
SCHEMA = newest(STEPS)


def check(value: dict[str, Any], folder: Path, **place: Any) -> Run:
    """A run out of its run.json with the other files under ``metrics``, ``params``, ``provenance`` and ``cost``.

    Args:
        value: As it was read, of any version.
        folder: Where it lies, for the error.
        place: Further fields: campaign, label.

    Raises:
        InputError: In one line, naming the file and key of the first thing that is wrong.
    """
    missing = [key for key in ("stage", "network", "method", "form", "genotype_hash") if key not in value]
    if missing:
        raise InputError(f"the key {missing[0]!r} is missing", where=folder / "run.json")
    value = upgrade(value, STEPS, folder / "run.json")
    try:
        return _RUN.validate_python(value | {"folder": folder} | place)
    except ValidationError as error:
        raise refusal(error, folder, "run.json") from None


def refusal(error: ValidationError, folder: Path, file: str) -> InputError:
    """The first thing that is wrong as one line: file, key, what was found and what is allowed."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    path = path[1:] if path and path[0] in STAGES and file == RUN_FILE else path  # the kind's tag
    if path and path[0] in FILES:
        file = f"{path.pop(0)}.json"
    key, found = ".".join(path), repr(first["input"])[:60]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return InputError(f"{key} is missing", where=folder / file)
    if first["type"] == "value_error" and (not key or file == "metrics.json"):
        return InputError(message, where=folder / file)
    if first["type"].startswith("union_tag"):
        key, found, message = "stage", repr(error.errors()[0]["input"].get("stage"))[:60], ", ".join(STAGES)
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown key {key!r}", where=folder / file)
    return InputError(f"{key} is {found}", where=folder / file, allowed=message)
