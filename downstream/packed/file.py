"""The file of a packed network: safetensors with the program's tables, its tensors, and JSON in the header.

docs/packed.md has the layout and the formula of its size. Nothing in a file is executed; a file whose tables do not
fit each other is refused before the C code sees it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from downstream.packed.engine import Packed
from downstream.packed.program import CODES, COLUMNS, VALUE_COLUMNS, WORD, Program
from search.errors import InputError
from search.files import atomic

FORMAT = "packed-1bit"
VERSION = "1"
TABLES = ("operations", "values")
_JSON = ("architecture", "outputs", "layers")


def save(path: str | Path, packed: Packed) -> None:
    """Write a packed network, atomically."""
    program = packed.program
    tensors = {name: array for name, array in program.tensors}
    tensors |= {"operations": program.operations, "values": program.values}
    header = {
        **program.metadata,
        "format": FORMAT,
        "version": VERSION,
        "architecture": json.dumps(packed.architecture, sort_keys=True),
        "architecture_hash": packed.architecture_hash,
        "outputs": json.dumps(program.outputs),
        "layers": json.dumps(program.layers),
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def is_packed(path: str | Path) -> bool:
    """Whether a safetensors file holds a packed network."""
    return _header(path).get("format") == FORMAT


def load(path: str | Path, variant: str | None = None) -> Packed:
    """Read a packed network; ``variant`` names the instruction set, by default the best of this CPU.

    Raises:
        InputError: If the file is none, is of another version, or contradicts itself.
    """
    header = _header(path)
    if header.get("format") != FORMAT:
        raise InputError("is no packed network", where=path, mend="make one with python -m pipelines.pack")
    if header.get("version") != VERSION:
        raise InputError(f"is of version {header.get('version')}", where=path, allowed=VERSION)
    with safe_open(str(path), framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        parts: dict[str, Any] = {name: json.loads(header[name]) for name in _JSON}
        tables = [np.ascontiguousarray(tensors.pop(name)) for name in TABLES]
        numbered = sorted(tensors.items(), key=lambda item: int(item[0].partition(".")[0]))
    except (KeyError, ValueError) as error:
        raise InputError(f"is incomplete ({type(error).__name__}: {error})", where=path) from None
    known = {"format", "version", "architecture_hash", *_JSON}
    program = Program(
        operations=tables[0],
        values=tables[1],
        tensors=numbered,
        outputs=parts["outputs"],
        layers=parts["layers"],
        metadata={key: value for key, value in header.items() if key not in known},
    )
    try:
        check(program)
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"contradicts itself ({error})", where=path) from None
    return Packed(program, parts["architecture"], str(header.get("architecture_hash")), variant)


def _header(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(str(path), framework="np") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a readable safetensors file ({error})", where=path) from None


def check(program: Program) -> None:
    """Refuse tables that would make the C code read outside of its buffers.

    Raises:
        ValueError: With what is wrong.
    """
    _expect(program.operations.shape[1:] == (len(COLUMNS),), "the table of operations has other columns")
    _expect(program.values.shape[1:] == (len(VALUE_COLUMNS),), "the table of values has other columns")
    _expect(program.operations.dtype == program.values.dtype == np.int32, "a table is not of 32-bit integers")
    _expect(len(program.layers) == len(program.operations), "layers and operations differ in number")
    values = [dict(zip(VALUE_COLUMNS, map(int, row), strict=True)) for row in program.values]
    for value in values:
        _check_value(value, values)
    made = {0}
    for line in program.operations:
        row = dict(zip(COLUMNS, map(int, line), strict=True))
        _check_row(row, values, made, [array for _, array in program.tensors])
        made |= {row["output"], values[row["output"]]["parent"]} - {-1}
    _expect(set(program.outputs.values()) <= made, "an output is not computed")
    _expect(all(values[v]["kind"] == 0 for v in program.outputs.values()), "an output is no map")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _check_value(value: dict[str, int], values: list[dict[str, int]]) -> None:
    _expect(value["kind"] in (0, 1, 2) and 0 < value["channels"] < 2**20, "a value is of no known kind")
    _expect(
        value["parts"] > 0 and value["channels"] % value["parts"] == 0, "channels do not divide into groups"
    )
    _expect(0 <= value["border"] < 2**10 and value["fill"] in (-1, 0, 1), "a border is out of range")
    _expect(value["kind"] != 0 or value["border"] == 0, "a map has a border")
    _expect(-1 <= value["parent"] < len(values), "a part of no value")
    if value["parent"] >= 0:
        parent = values[value["parent"]]
        fits = 0 <= value["start"] <= parent["channels"] - value["channels"]
        _expect(value["kind"] == parent["kind"] == 0 and parent["parent"] < 0 and fits, "a part does not fit")


def _check_row(
    row: dict[str, int], values: list[dict[str, int]], made: set[int], tensors: list[NDArray[Any]]
) -> None:
    """One operation: reads what is made, and has tensors of the sizes that its code reads."""
    _expect(row["code"] in CODES.values(), f"operation {row['code']} is unknown")
    _expect(
        row["input"] in made and (row["addend"] == -1 or row["addend"] in made), "reads what is not computed"
    )
    _expect(0 < row["output"] < len(values), "an output is out of range")
    source, target = values[row["input"]], values[row["output"]]
    _expect(0 < row["kernel"] <= 31 and 0 < row["stride"] <= 16, "a window is out of range")
    _expect(0 < row["dilation"] <= 64 and row["groups"] > 0, "a window is out of range")
    _expect(0 <= row["padding"] <= 2**10, "a padding is out of range")
    kind = next(name for name, code in CODES.items() if code == row["code"])
    _check_kinds(kind, row, source, target)
    if row["addend"] >= 0:
        addend = values[row["addend"]]
        _expect(target["kind"] == addend["kind"] == 0, "adds what is no map")
        _expect(addend["channels"] == target["channels"], "adds maps of different channels")
    needed = _needed(kind, row, source, target)
    for role in COLUMNS[11:]:
        index = row[role]
        _expect(role in needed or index == -1 or role in COLUMNS[12:], f"has a {role} that it does not use")
        if role in needed or index >= 0:
            _expect(0 <= index < len(tensors), f"has no {role}")
            count, dtype = needed.get(role, (target["channels"], np.dtype(np.float32)))
            fits = tensors[index].size == count and tensors[index].dtype == dtype
            _expect(fits, f"its {role} has {tensors[index].size} entries of {tensors[index].dtype}")
    _expect((row["scale"] >= 0) == (row["bias"] >= 0), "has a scale without a bias")


_STORAGES = {
    "sign": ((0,), (1, 2)),
    "shift": ((0, 1), (0, 1)),
    "binary": ((1,), (0, 1, 2)),
    "depthwise": ((2,), (0, 1, 2)),
}


def _check_kinds(kind: str, row: dict[str, int], source: dict[str, int], target: dict[str, int]) -> None:
    sources, targets = _STORAGES.get(kind, ((0,), (0,)))
    _expect(source["kind"] in sources and target["kind"] in targets, f"{kind} of other kinds of values")
    if kind in ("binary", "real"):
        divides = source["channels"] % row["groups"] == 0 and target["channels"] % row["groups"] == 0
        _expect(divides, "groups do not divide the channels")
        _expect(kind == "real" or source["parts"] == row["groups"], "words of other groups")
    elif kind == "copy":
        fits = 0 <= row["offset"] <= target["channels"] - source["channels"]
        _expect(fits, "a copy does not fit")
    else:
        _expect(source["channels"] == target["channels"], f"{kind} changes the channels")
    if kind in ("binary", "depthwise"):
        _expect(row["padding"] <= source["border"], "pads more than its input's border")
    if kind == "shift":
        _expect(
            source["kind"] == target["kind"] and source["parts"] == target["parts"],
            "a shift changes its kind",
        )


def _needed(
    kind: str, row: dict[str, int], source: dict[str, int], target: dict[str, int]
) -> dict[str, tuple[int, np.dtype[Any]]]:
    """Entries and type of the tensors that an operation reads without asking whether they are there."""
    needed: dict[str, tuple[int, np.dtype[Any]]] = {}
    taps, outputs = row["kernel"] ** 2, target["channels"]
    words, floats = np.dtype(np.uint64), np.dtype(np.float32)
    inputs = source["channels"] // row["groups"]
    if kind == "binary":
        needed["weight"] = (outputs * taps * -(-inputs // WORD), words)
    elif kind == "depthwise":
        needed["weight"] = (outputs * -(-taps // WORD), words)
    elif kind == "real" and row["offset"]:
        needed["weight"] = (outputs * -(-inputs * taps // WORD), words)
    elif kind == "real":
        needed["weight"] = (outputs * inputs * taps, floats)
    if kind in ("binary", "depthwise") and target["kind"] != 0:
        needed["threshold"] = (outputs, np.dtype(np.int16))
    return needed
