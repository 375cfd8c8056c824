"""Genotypes: the found architecture as data, with validation, content hash, derivation and collapse diagnosis.

The file's form is ``{"schema": 1, "name": "...", "source": "...", "normal": [...], "reduce": [...]}`` for the space of
the papers; schema 2 has a key ``space`` more, the :class:`search.space.Space` as JSON. Each cell lists its nodes (four
in the papers' space), each node one or more ``[operation, input]`` pairs; inputs 0 and 1 are the outputs of the two
previous cells (the one before the last first), 2, 3, ... are earlier nodes of the same cell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from search import genotype_forms
from search.errors import InputError, nearest
from search.files import sha256_json, write_json
from search.space import INPUTS, NONE, PAPER, PARAMETER_FREE, Keep, Space

SCHEMA = 1
"""Files of the papers' space, which name none."""
SCHEMA_WITH_SPACE = 2
NODES = PAPER.nodes
OPERATIONS = PAPER.operations
EDGES = PAPER.edges
"""The 14 edges ``(source, node)`` of a cell in the order of the rows of alpha."""

_PUBLISHED_FOLDER = Path(__file__).parent / "published"


class Edge(NamedTuple):
    """One kept edge: an operation and the index of its input."""

    operation: str
    source: int


Node = tuple[Edge, ...]
Cell = tuple[Node, ...]


@dataclass(frozen=True)
class Genotype:
    """A found architecture: the edges kept into each node of both cells.

    Attributes:
        name: What people call it.
        source: Where it comes from: a paper, or the run that found it.
        normal: The normal cell, one entry a node.
        reduce: The reduction cell; equal to ``normal`` where the space has one architecture for both.
        space: Where it was found; the papers' unless said otherwise.
    """

    name: str
    source: str
    normal: Cell
    reduce: Cell
    space: Space = PAPER

    @property
    def hash(self) -> str:
        """Content hash (sha256, hex) of the two cells; name, source, space and the order of edges do not enter.

        A network is decided by its cells: found in another space, the same cells are the same network.
        """
        cells = {kind: [sorted(node) for node in getattr(self, kind)] for kind in ("normal", "reduce")}
        return sha256_json({"schema": SCHEMA, **cells})

    def to_dict(self) -> dict[str, Any]:
        """The file's form as plain JSON values."""
        cells = {
            kind: [[list(edge) for edge in node] for node in getattr(self, kind)]
            for kind in ("normal", "reduce")
        }
        named = {"name": self.name, "source": self.source}
        if self.space == PAPER:
            return {"schema": SCHEMA, **named, **cells}
        return {"schema": SCHEMA_WITH_SPACE, **named, "space": self.space.to_dict(), **cells}

    def save(self, path: str | Path) -> None:
        """Write the genotype as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read and validate a genotype file; errors name the file, the place and what is allowed.

        Other repositories' forms are read too, see :mod:`search.genotype_forms`.
        """
        return cls.from_dict(genotype_forms.read(path), where=str(path))

    @classmethod
    def from_dict(cls, value: Any, where: str = "genotype") -> Genotype:
        """Validate plain JSON values; see the module's text for the form.

        Raises:
            InputError: With the place of the first thing that is wrong.
        """
        if not isinstance(value, dict):
            raise InputError(f"a genotype is a JSON object, not {type(value).__name__}", where=where)
        keys = ["schema", "name", "source", "normal", "reduce"]
        if value.get("schema") == SCHEMA_WITH_SPACE:
            keys.insert(3, "space")
        for key in keys:
            if key not in value:
                raise InputError(f"the key {key!r} is missing", where=where, allowed=", ".join(keys))
        for key in value:
            if key not in keys:
                raise InputError(f"unknown key {key!r}", where=where, allowed=", ".join(keys))
        if value["schema"] not in (SCHEMA, SCHEMA_WITH_SPACE) or isinstance(value["schema"], bool):
            raise InputError(
                f"schema {value['schema']!r} is of another version",
                where=where,
                allowed=f"{SCHEMA}, {SCHEMA_WITH_SPACE}",
            )
        for key in ("name", "source"):
            if not isinstance(value[key], str):
                raise InputError(f"{key} is {value[key]!r}", where=where, allowed="text")
        space = Space.from_dict(value["space"], f"{where}, space") if "space" in value else PAPER
        normal, reduce = (_cell(value[kind], space, f"{where}, {kind}") for kind in ("normal", "reduce"))
        if normal != reduce and not space.reduction:
            raise InputError(
                f"reduce differs from normal, but space {space.name!r} has one architecture for both",
                where=where,
            )
        return cls(value["name"], value["source"], normal, reduce, space)


def _cell(value: Any, space: Space, where: str) -> Cell:
    if not isinstance(value, list) or len(value) != space.nodes:
        found = f"{len(value)} nodes" if isinstance(value, list) else f"{value!r}"
        raise InputError(f"found {found}", where=where, allowed=f"a list of {space.nodes} nodes")
    return tuple(
        _node(node, index, space, f"{where}, node {index + INPUTS}") for index, node in enumerate(value)
    )


def _node(value: Any, index: int, space: Space, where: str) -> Node:
    if not isinstance(value, list) or not value:
        raise InputError(
            f"found {value!r}", where=where, allowed="a list of one or more [operation, input] pairs"
        )
    edges = tuple(_edge(edge, INPUTS + index, space.operations, where) for edge in value)
    sources = [edge.source for edge in edges]
    for source in sources:
        if sources.count(source) > 1:
            raise InputError(
                f"input {source} is used {sources.count(source)} times", where=where, allowed="once"
            )
    return edges


def _edge(value: Any, node: int, operations: Sequence[str], where: str) -> Edge:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"found {value!r}", where=where, allowed='a pair such as ["sep_conv_3x3", 0]')
    operation, source = value
    if not isinstance(operation, str) or operation not in operations:
        hint = nearest(str(operation), operations)
        raise InputError(
            f"unknown operation {operation!r}" + (f", did you mean {hint!r}?" if hint else ""),
            where=where,
            allowed=", ".join(operations),
        )
    if not isinstance(source, int) or isinstance(source, bool) or not 0 <= source < node:
        raise InputError(f"input {source!r} of {operation}", where=where, allowed=f"0 to {node - 1}")
    return Edge(operation, source)


def derive(
    normal: Sequence[Sequence[float]],
    reduce: Sequence[Sequence[float]],
    *,
    name: str,
    source: str,
    edges: Keep | None = None,
    space: Space = PAPER,
    edge_weights: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Genotype:
    """The genotype of a table of scores.

    Args:
        normal, reduce: Scores, one row an edge of the space and one column an operation (14 x 8 in the papers'
            space); minus infinity marks an operation that was dropped.
        name, source: As in :class:`Genotype`.
        edges: ``top2`` keeps for each node the two edges whose best operation scores highest, the stronger
            first (DARTS); ``all`` keeps every edge, in the order of their inputs; None is the space's own rule.
        space: What rows and columns mean. ``none`` is never kept.
        edge_weights: One factor an edge for each cell (PC-DARTS's edge normalisation), applied before the
            edges are compared.

    Of equal scores the first in order wins, so that the result is a function of the table alone.
    """
    factors = edge_weights if edge_weights is not None else ([1.0] * len(space.edges),) * 2
    cells = [
        _derive_cell(scores, factor, edges or space.keep, space)
        for scores, factor in zip((normal, reduce), factors, strict=True)
    ]
    return Genotype(name, source, cells[0], cells[1], space)


def derive_from_alpha(
    normal: Sequence[Sequence[float]],
    reduce: Sequence[Sequence[float]],
    *,
    name: str,
    source: str,
    edges: Keep | None = None,
    space: Space = PAPER,
    edge_weights: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Genotype:
    """The genotype of architecture parameters alpha (14 x 8 a cell in the papers): :func:`derive` on their softmax.

    The softmax runs over all operations of an edge, ``none`` included, before ``none`` is left out (DARTS).
    """
    tables = [[_softmax(row) for row in alpha] for alpha in (normal, reduce)]
    return derive(*tables, name=name, source=source, edges=edges, space=space, edge_weights=edge_weights)


def _softmax(row: Sequence[float]) -> list[float]:
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


def _derive_cell(
    scores: Sequence[Sequence[float]], factors: Sequence[float], edges: Keep, space: Space
) -> Cell:
    operations = space.operations
    if len(scores) != len(space.edges) or any(len(row) != len(operations) for row in scores):
        raise ValueError(f"scores must be {len(space.edges)} rows of {len(operations)} columns")
    kept = [k for k, operation in enumerate(operations) if operation != NONE]
    nodes = []
    for node in range(INPUTS, INPUTS + space.nodes):
        found = []
        for row, factor, (edge_source, target) in zip(scores, factors, space.edges, strict=True):
            if target == node:
                best = max(kept, key=lambda k, row=row: row[k])  # type: ignore[misc]
                found.append((row[best] * factor, Edge(operations[best], edge_source)))
        if edges == "top2":
            found = sorted(found, key=lambda item: -item[0])[:2]
        nodes.append(tuple(edge for _, edge in found))
    return tuple(nodes)


@dataclass(frozen=True)
class Collapse:
    """How far the normal cell has collapsed to parameter-free operations.

    Attributes:
        skip_connects: Number of ``skip_connect`` edges of the normal cell.
        depth: Longest chain of edges from a cell input to a node of the normal cell (1 to the number of nodes).
        parameter_free_share: Share of the normal cell's edges that have no convolution.
        collapsed: True if skip connections are the majority of the normal cell's edges, or if none of its
            edges has weights.
    """

    skip_connects: int
    depth: int
    parameter_free_share: float
    collapsed: bool


def collapse(genotype: Genotype) -> Collapse:
    """Diagnose the collapse described by RobustDARTS (Zela et al. 2020): skip connections crowd out convolutions."""
    edges = [edge for node in genotype.normal for edge in node]
    skips = sum(edge.operation == "skip_connect" for edge in edges)
    free = sum(edge.operation in PARAMETER_FREE for edge in edges) / len(edges)
    depths = [0] * INPUTS
    for node in genotype.normal:
        depths.append(1 + max(depths[edge.source] for edge in node))
    return Collapse(skips, max(depths), free, 2 * skips > len(edges) or free == 1.0)


@functools.cache
def published_names() -> tuple[str, ...]:
    """Names of the genotypes that ship with the suite, each a JSON file with its source."""
    return tuple(sorted(path.stem for path in _PUBLISHED_FOLDER.glob("*.json")))


def published(name: str) -> Genotype:
    """A published genotype by name (letter case is ignored)."""
    known = {known_name.lower(): known_name for known_name in published_names()}
    if name.lower() not in known:
        hint = nearest(name, known_names := published_names())
        raise InputError(
            f"no published genotype {name!r}" + (f", did you mean {hint!r}?" if hint else ""),
            allowed=", ".join(known_names),
        )
    return Genotype.load(_PUBLISHED_FOLDER / f"{known[name.lower()]}.json")
