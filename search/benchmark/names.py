"""Architectures as one line of text: an operation an edge, in the order of the space's edges, joined by ``|``."""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import InputError, nearest
from search.genotype import Edge, Genotype
from search.space import INPUTS, Space

SHORT = {
    "none": "none",
    "skip_connect": "skip",
    "max_pool_3x3": "max",
    "avg_pool_3x3": "avg",
    "sep_conv_3x3": "sep3",
    "sep_conv_5x5": "sep5",
    "dil_conv_3x3": "dil3",
    "dil_conv_5x5": "dil5",
}
SEPARATOR = "|"


def describe(choices: Sequence[int], space: Space) -> str:
    """``space.rows`` indices of operations to text, such as ``skip|sep3|max|sep3|dil3``."""
    return SEPARATOR.join(SHORT[space.operations[choice]] for choice in choices)


def parse(text: str, space: Space) -> tuple[int, ...]:
    """Text to indices of operations; the inverse of :func:`describe`.

    Raises:
        InputError: With what is allowed, and the nearest valid text where there is one.
    """
    known = {SHORT[operation]: index for index, operation in enumerate(space.operations)}
    parts = text.split(SEPARATOR)
    if len(parts) == space.rows and all(part in known for part in parts):
        return tuple(known[part] for part in parts)
    close = [part if part in known else nearest(part, known) or next(iter(known)) for part in parts]
    close = (close + [next(iter(known))] * space.rows)[: space.rows]
    raise InputError(
        f"{text!r} is no architecture of the space {space.name!r}, the nearest is {SEPARATOR.join(close)!r}",
        allowed=f"{space.rows} of {', '.join(known)}, joined by {SEPARATOR!r}",
    )


def genotype_of(choices: Sequence[int], space: Space) -> Genotype:
    """The genotype that keeps every edge of the space with the chosen operation."""
    cells = []
    for rows in space.by_kind(choices):
        nodes: list[list[Edge]] = [[] for _ in range(space.nodes)]
        for (source, node), choice in zip(space.edges, rows, strict=True):
            nodes[node - INPUTS].append(Edge(space.operations[choice], source))
        cells.append(tuple(map(tuple, nodes)))
    name = describe(choices, space)
    return Genotype(name, f"an architecture of the space {space.name!r}", cells[0], cells[1], space)


def choices_of(genotype: Genotype, space: Space) -> tuple[int, ...]:
    """The indices of a genotype that keeps every edge; the inverse of :func:`genotype_of`.

    Raises:
        InputError: If the genotype has another number of nodes, leaves an edge out, or has an operation that the
            space has not.
    """
    where = f"genotype {genotype.name!r}"
    choices = []
    for kind in space.kinds:
        cell = getattr(genotype, kind)
        found = {
            (edge.source, index + INPUTS): edge.operation for index, node in enumerate(cell) for edge in node
        }
        if tuple(sorted(found, key=lambda edge: (edge[1], edge[0]))) != space.edges:
            raise InputError(
                f"its {kind} cell has other edges than the space {space.name!r}",
                where=where,
                allowed=f"all {len(space.edges)} edges of {space.nodes} nodes",
            )
        for edge in space.edges:
            if found[edge] not in space.operations:
                raise InputError(
                    f"{found[edge]!r} is no operation of the space {space.name!r}",
                    where=where,
                    allowed=", ".join(space.operations),
                )
            choices.append(space.operations.index(found[edge]))
    if not space.reduction and genotype.normal != genotype.reduce:
        raise InputError(f"its cells differ, the space {space.name!r} has one for both", where=where)
    return tuple(choices)
