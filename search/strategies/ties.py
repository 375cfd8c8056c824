"""Ties: equal scores are put in order by a seeded draw, never by their place in a table, and it is said how often.

"The first wins" looks harmless and is not: edges from the cell's inputs stand first in every node, so that a search
whose scores are few and equal would find shallow cells, whatever it measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from search.space import INPUTS, NONE, PAPER, Keep, Space

DIGITS = 12
"""Scores that agree to this many digits behind the point are equal: rounding is no evidence."""
Table = Sequence[Sequence[float]]
"""Scores of a cell, a row an edge, a column an operation; minus infinity marks what cannot be chosen."""


class Settled(NamedTuple):
    """Tables without ties.

    Attributes:
        normal, reduce: Places in the order of the scores, the largest the best; equals in a drawn order.
        tied_nodes: Nodes whose kept edges or operations another order of the equals would have changed.
        nodes: Number of nodes.
    """

    normal: list[list[float]]
    reduce: list[list[float]]
    tied_nodes: int
    nodes: int

    @property
    def share(self) -> float:
        """Share of the nodes that a tie decided."""
        return self.tied_nodes / self.nodes


def settle(
    normal: Table, reduce: Table, seed: int, edges: Keep | None = None, space: Space = PAPER
) -> Settled:
    """Replace scores by their places, so that :func:`search.genotype.derive` meets no equals.

    Args:
        normal, reduce: Scores; what the edges of a node are compared by.
        seed: Decides the order of equals.
        edges: Which edges the derivation keeps; None is the space's own rule.
        space: What rows and columns mean. Where it has one architecture for both kinds of cell, ``normal`` decides it.
    """
    tables = dict(zip(space.kinds, (normal, reduce), strict=False))
    placed = {cell: _places(table, random.Random(f"ties {seed} {cell}")) for cell, table in tables.items()}
    nodes = range(INPUTS, INPUTS + space.nodes)
    tied = sum(_tied(table, node, edges or space.keep, space) for table in tables.values() for node in nodes)
    return Settled(placed["normal"], placed[space.kinds[-1]], tied, len(tables) * space.nodes)


def _places(table: Table, generator: random.Random) -> list[list[float]]:
    lowest = float("-inf")
    cells = [(row, column) for row, scores in enumerate(table) for column in range(len(scores))]
    drawn = {cell: generator.random() for cell in cells}
    ordered = sorted(cells, key=lambda cell: (round(table[cell[0]][cell[1]], DIGITS), drawn[cell]))
    places = {cell: float(place) for place, cell in enumerate(ordered)}
    return [
        [places[row, column] if score > lowest else lowest for column, score in enumerate(scores)]
        for row, scores in enumerate(table)
    ]


def _tied(table: Table, node: int, edges: Keep, space: Space) -> bool:
    """Whether equals decide which edges a node keeps, or which operation on one that it can keep."""
    found = []
    for scores, (_, target) in zip(table, space.edges, strict=True):
        if target == node:
            candidates = [
                round(score, DIGITS)
                for score, operation in zip(scores, space.operations, strict=True)
                if operation != NONE
            ]
            best = max(candidates)
            found.append((best, candidates.count(best) > 1))
    found.sort(reverse=True)
    if edges == "all" or len(found) <= 2:
        return any(shared for _, shared in found)
    boundary = found[1][0]
    return found[2][0] == boundary or any(shared for best, shared in found if best >= boundary)


def best_of(values: Sequence[float], seed: int, what: str) -> tuple[int, int]:
    """Place of the largest value, among equals by a seeded draw, and how many share it."""
    best = max(round(value, DIGITS) for value in values)
    equals = [place for place, value in enumerate(values) if round(value, DIGITS) == best]
    return random.Random(f"tie {seed} {what}").choice(equals), len(equals)
