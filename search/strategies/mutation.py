"""Small changes of an architecture: one edge of one cell gets another operation or another input."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from search.genotype import Cell, Edge, Genotype
from search.space import INPUTS


class Change(NamedTuple):
    """One edge of a genotype and what it becomes.

    Attributes:
        cell: ``normal`` or ``reduce``; always ``normal`` where the space has one architecture for both.
        node: Place of the node in the cell, from 0.
        place: Place of the edge in the node.
        edge: The new edge.
    """

    cell: str
    node: int
    place: int
    edge: Edge


def operation_changes(genotype: Genotype) -> Iterator[Change]:
    """All changes of one operation; ``none`` is no operation of an architecture."""
    for cell, node, place, edge in _edges(genotype):
        for operation in genotype.space.kept:
            if operation != edge.operation:
                yield Change(cell, node, place, Edge(operation, edge.source))


def input_changes(genotype: Genotype) -> Iterator[Change]:
    """All changes of one input to one that its node does not read yet."""
    for cell, node, place, edge in _edges(genotype):
        read = {other.source for other in getattr(genotype, cell)[node]}
        for source in range(INPUTS + node):
            if source not in read:
                yield Change(cell, node, place, Edge(edge.operation, source))


def _edges(genotype: Genotype) -> Iterator[tuple[str, int, int, Edge]]:
    for cell in genotype.space.kinds:
        for node, edges in enumerate(getattr(genotype, cell)):
            for place, edge in enumerate(edges):
                yield cell, node, place, edge


def changed(genotype: Genotype, change: Change, name: str, source: str) -> Genotype:
    """The genotype after a change; a node's edges stay in the order of their inputs."""
    cells: dict[str, Cell] = {"normal": genotype.normal, "reduce": genotype.reduce}
    node = list(cells[change.cell][change.node])
    node[change.place] = change.edge
    cell = list(cells[change.cell])
    cell[change.node] = tuple(sorted(node, key=lambda edge: edge.source))
    cells[change.cell] = tuple(cell)
    return Genotype(name, source, cells["normal"], cells[genotype.space.kinds[-1]], genotype.space)


def mutation(genotype: Genotype, generator: random.Random) -> Change:
    """A drawn change: of an operation or of an input with equal chances, then uniform (Real et al. 2019, fig. 2)."""
    inputs = list(input_changes(genotype))
    chosen = inputs if inputs and generator.random() < 0.5 else list(operation_changes(genotype))
    return generator.choice(chosen)
