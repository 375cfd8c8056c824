"""Genotype files as other repositories write them, brought into the form of :mod:`search.genotype`.

Read are, where their meaning is clear: DARTS's Python text ``NAME = Genotype(normal=[...], normal_concat=range(2, 6),
...)``, which is parsed and never run; cells as one flat list with two edges a node; the fields ``normal_concat`` and
``reduce_concat`` where they name all nodes; GDAS's empty fields; edges with a weight behind the input; no name.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from search.errors import InputError
from search.files import read_json

KINDS = ("normal", "reduce")
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
"""DARTS's named tuple, in its order."""
EMPTY = ("connectN", "connects")
"""Further fields of GDAS's named tuple, None in every genotype."""
FIRST_NODE = 2
BYTES = 2**20


def read(path: str | Path) -> Any:
    """The JSON values of a genotype file in this suite's form, not validated.

    Raises:
        InputError: If the file is neither JSON nor a genotype in Python's form, or says what cannot be built.
    """
    file = Path(path)
    value = python_form(text, file) if (text := _python_text(file)) else read_json(file)
    return known_form(value, file) if isinstance(value, dict) else value


def _python_text(file: Path) -> str | None:
    """The text of a file that is no JSON at first sight; None also where it cannot be read."""
    try:
        with file.open("rb") as stream:
            text = stream.read(BYTES).decode("utf-8-sig").strip()
    except (OSError, ValueError):
        return None
    return text if "Genotype(" in text and text[:1] not in "[{" else None


def python_form(text: str, where: object) -> dict[str, Any]:
    """The fields of the one ``Genotype(...)`` in Python text."""
    try:
        calls = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and _is(node, "Genotype")
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"is no Python text ({error})", where=where) from None
    if len(calls) != 1:
        raise InputError(
            f"holds {len(calls)} genotypes", where=where, allowed="one", mend="keep the one that is meant"
        )
    fields = dict(zip(FIELDS, calls[0].args, strict=False))
    fields |= {word.arg: word.value for word in calls[0].keywords if word.arg}
    return {name: _literal(node, f"{where}, {name}") for name, node in fields.items()}


def _is(call: ast.expr, name: str) -> bool:
    return isinstance(call, ast.Call) and name in (
        getattr(call.func, "id", ""),
        getattr(call.func, "attr", ""),
    )


def _literal(node: ast.expr, where: str) -> Any:
    """A constant expression, ``range(a, b)`` and ``list(...)`` of one included."""
    try:
        if isinstance(node, ast.Call) and _is(node, "list") and len(node.args) == 1:
            return list(_literal(node.args[0], where))
        if isinstance(node, ast.Call) and _is(node, "range") and 1 <= len(node.args) <= 2:
            bounds = [int(ast.literal_eval(argument)) for argument in node.args]
            return list(range(*bounds))[:100]
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise InputError("is no constant", where=where, allowed="a list of edges, or range(2, 6)") from None


def known_form(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """A genotype's fields with nested cells and without the fields that only repeat what the cells say."""
    fields: dict[str, Any] = {"schema": 1, "name": file.stem, "source": file.name} | value
    for name in EMPTY:
        if fields.get(name, 0) is None:
            del fields[name]
    for kind in KINDS:
        if isinstance(fields.get(kind), list | tuple):
            fields[kind] = _nested(list(fields[kind]), f"{file}, {kind}")
            _check_concat(fields.pop(f"{kind}_concat", None), fields[kind], f"{file}, {kind}_concat")
    return fields


def _nested(cell: list[Any], where: str) -> list[Any]:
    """A cell as a list of nodes, each a list of ``[operation, input]``."""
    if cell and all(_is_edge(item) for item in cell):
        if len(cell) % 2:
            raise InputError(f"has {len(cell)} edges", where=where, allowed="two a node in a flat list")
        cell = [cell[place : place + 2] for place in range(0, len(cell), 2)]
    return [[_pair(edge) for edge in node] if isinstance(node, list | tuple) else node for node in cell]


def _is_edge(item: Any) -> bool:
    return isinstance(item, list | tuple) and bool(item) and isinstance(item[0], str)


def _pair(edge: Any) -> Any:
    """An edge without the weight that GDAS puts behind its input."""
    if not isinstance(edge, list | tuple):
        return edge
    weighted = len(edge) == 3 and (edge[2] is None or isinstance(edge[2], float))
    return list(edge[:2] if weighted else edge)


def _check_concat(concat: Any, nodes: list[Any], where: str) -> None:
    """Refuse a cell whose output leaves nodes out: the networks here put all nodes together."""
    wanted = list(range(FIRST_NODE, FIRST_NODE + len(nodes)))
    if concat is None or (isinstance(concat, list | tuple) and list(concat) == wanted):
        return
    raise InputError(f"is {str(concat)[:80]}", where=where, allowed=f"{wanted}, all nodes of the cell")
