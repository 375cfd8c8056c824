"""What a folder must be before it counts as a run record, and how it is read: both are one."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.results.reading import NETWORK_STEPS, check, refusal
from pipelines.results.record_columns import HISTORY, ROUNDS, TEXT
from pipelines.results.run import FILES, NETWORK_FILE, PICTURE_SUFFIXES, RUN_FILE, NetworkFile, Run
from pipelines.results.values import plain
from search.errors import InputError
from search.files import read_json
from search.genotype import Genotype
from search.versions import upgrade

SIZE_LIMIT = 300 * 1024
"""Bytes of one file of a record: records live in git."""
NOT_RECORDED = frozenset({"detections.json"})
"""Exports that lie beside a run and are no part of its record: every box of a test set is megabytes."""
NUMBERS = {name for names in (*HISTORY, *ROUNDS) for name in names.split(", ")} - TEXT
"""Columns of histories that hold numbers."""


def record_files(folder: Path) -> list[Path]:
    """The files of a run folder that belong into a record: JSON, CSV and pictures, no weights and no exports."""
    kept = [
        path
        for path in folder.iterdir()
        if path.suffix in (".json", ".csv") and path.name not in NOT_RECORDED
    ]
    pictures = [path for path in (folder / "pictures").glob("*") if path.suffix in PICTURE_SUFFIXES]
    return sorted(path for path in kept + pictures if not path.name.startswith("."))


def read_run(folder: Path, **place: Any) -> Run:
    """Read a run folder and check all of it (histories are read again when asked for).

    Args:
        folder: With run.json, metrics.json, params.json, provenance.json and what else the run left.
        place: Further fields of the :class:`Run`: its campaign.

    Raises:
        InputError: Naming the file and key of the first thing that is wrong.
    """
    _check_files(folder)
    parts = {name: _object(folder / f"{name}.json") for name in ("run", *FILES[:3])}
    value = parts["run"] | {name: parts[name] for name in FILES[:3]}
    if value.get("stage") == "cost" or (folder / "cost.json").exists():
        value["cost"] = _object(folder / "cost.json")
    run = check(value, folder, recorded=parts, **place)
    if not folder.as_posix().endswith(f"/{run.key}"):
        raise InputError(f"key {run.key!r} is not the folder's name", where=folder / RUN_FILE)
    _check_genotype(folder, run.genotype_hash)
    return run


def check_network(folder: Path) -> NetworkFile:
    """Read a derived network's folder: ``network.json``, and that a genotype has the stated hash."""
    _check_files(folder)
    value = upgrade(_object(folder / NETWORK_FILE), NETWORK_STEPS, folder / NETWORK_FILE)
    try:
        entry = NetworkFile.model_validate(value)
    except ValidationError as error:
        raise refusal(error, folder, NETWORK_FILE) from None
    if entry.name != folder.name:
        raise InputError(f"name {entry.name!r} is not the folder's", where=folder / NETWORK_FILE)
    _check_genotype(folder, entry.genotype_hash)
    return entry


def _check_files(folder: Path) -> None:
    for path in record_files(folder):
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise InputError("is a link or no file", where=path, mend="put the file itself there")
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError(
                f"{path.stat().st_size} bytes", where=path, allowed=f"at most {SIZE_LIMIT} bytes a file"
            )
        if path.suffix == ".csv":
            _check_csv(path)


def _check_csv(path: Path) -> None:
    """A history is text, a table, and a number wherever a number is meant."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
        head, *rows = csv.reader(lines, strict=True)
    except (ValueError, csv.Error) as error:
        raise InputError(f"not a CSV file ({error})", where=path) from None
    for number, row in enumerate([head, *rows], 1):
        where = f"{path}, line {number}"
        if len(row) != len(head):
            raise InputError(f"{len(row)} cells under {len(head)} columns", where=where)
        for name, cell in zip(head, row, strict=True):
            if not _fits(name, cell, number == 1):
                raise InputError(
                    f"{name} is {cell[:40]!r}", where=where, allowed="a finite number, or nothing"
                )


def _fits(name: str, cell: str, is_head: bool) -> bool:
    try:
        plain(cell)
        return is_head or name not in NUMBERS or cell == "" or math.isfinite(float(cell))
    except ValueError:
        return False


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"is a JSON {type(value).__name__}, an object was expected", where=path)
    return value


def _check_genotype(folder: Path, stated: str | None) -> None:
    path = folder / "genotype.json"
    if path.exists() and (found := Genotype.load(path).hash) != stated:
        raise InputError(f"its hash is {found[:12]}, the run states {str(stated)[:12]}", where=path)
