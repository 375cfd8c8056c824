"""A search space as data: nodes, operations, whether reduction cells differ, which edges a found network keeps.

``paper`` is the space of both papers (docs/method.md, section 2). ``small`` has few enough architectures to train
every one of them (:mod:`search.benchmark`). Methods read everything from a :class:`Space`, so that they run on any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args

from search.errors import InputError, nearest

Keep = Literal["top2", "all"]
NONE = "none"
KNOWN_OPERATIONS = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""What :func:`search.operations.build_operation` can build, in the order of the papers' tables."""
PARAMETER_FREE = frozenset({NONE, "max_pool_3x3", "avg_pool_3x3", "skip_connect"})
INPUTS = 2
"""Inputs of a cell: the outputs of the two cells before it. The networks are built for two."""
MOST_NODES = 12


@dataclass(frozen=True)
class Space:
    """A cell-based search space.

    Attributes:
        name: What settings and files call it.
        operations: The K operations of every edge; their order is that of the columns of alpha.
        nodes: Intermediate nodes of a cell; a node may read both inputs and every earlier node.
        reduction: Whether reduction cells have an architecture of their own. If not, both kinds of cell are built
            from one.
        keep: Edges of the found network: ``top2`` keeps two a node, ``all`` every edge.

    Raises:
        InputError: If the values make no space.
    """

    name: str
    operations: tuple[str, ...]
    nodes: int
    reduction: bool
    keep: Keep

    def __post_init__(self) -> None:
        where = f"space {self.name!r}"
        for operation in self.operations:
            if operation not in KNOWN_OPERATIONS:
                hint = nearest(str(operation), KNOWN_OPERATIONS)
                raise InputError(
                    f"unknown operation {operation!r}" + (f", did you mean {hint!r}?" if hint else ""),
                    where=where,
                    allowed=", ".join(KNOWN_OPERATIONS),
                )
        if len(set(self.operations)) < len(self.operations):
            raise InputError("an operation stands twice", where=where, allowed="each once")
        if not set(self.operations) - {NONE}:
            raise InputError("no operation is left", where=where, allowed="one or more besides 'none'")
        if (
            isinstance(self.nodes, bool)
            or not isinstance(self.nodes, int)
            or not 1 <= self.nodes <= MOST_NODES
        ):
            raise InputError(f"{self.nodes!r} nodes", where=where, allowed=f"1 to {MOST_NODES}")
        if self.keep not in get_args(Keep):
            raise InputError(f"keep is {self.keep!r}", where=where, allowed=", ".join(get_args(Keep)))

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges ``(source, node)`` of a cell, in the order of the rows of alpha; states 0 and 1 are the inputs."""
        states = range(INPUTS, INPUTS + self.nodes)
        return tuple((source, node) for node in states for source in range(node))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of cell that have an architecture of their own."""
        return ("normal", "reduce") if self.reduction else ("normal",)

    @property
    def rows(self) -> int:
        """Edges of all kinds of cell: rows of the tables of scores and alphas."""
        return len(self.kinds) * len(self.edges)

    @property
    def kept(self) -> tuple[str, ...]:
        """Operations that a found network may have: all but ``none``."""
        return tuple(operation for operation in self.operations if operation != NONE)

    @property
    def size(self) -> int:
        """How many architectures have one operation on every edge."""
        return len(self.operations) ** self.rows

    def choices(self) -> Iterator[tuple[int, ...]]:
        """Every architecture as indices of operations, one a row; the last row runs fastest."""
        return product(range(len(self.operations)), repeat=self.rows)

    def by_kind(self, rows: Sequence[Any]) -> tuple[Any, Any]:
        """Rows of all kinds to those of the normal and of the reduction cell, which may be the same."""
        count = len(self.edges)
        return rows[:count], rows[-count:]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "operations": list(self.operations),
            "nodes": self.nodes,
            "reduction": self.reduction,
            "keep": self.keep,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str = "space") -> Space:
        """Validate plain JSON values.

        Raises:
            InputError: With the first thing that is wrong.
        """
        keys = ("name", "operations", "nodes", "reduction", "keep")
        if not isinstance(value, Mapping) or sorted(value) != sorted(keys):
            raise InputError(f"found {value!r}", where=where, allowed=f"a mapping of {', '.join(keys)}")
        if not isinstance(value["name"], str) or not isinstance(value["reduction"], bool):
            raise InputError("name must be text, reduction true or false", where=where)
        operations = value["operations"]
        if not isinstance(operations, list) or not all(isinstance(name, str) for name in operations):
            raise InputError(f"operations is {operations!r}", where=where, allowed="a list of names")
        return cls(value["name"], tuple(operations), value["nodes"], value["reduction"], value["keep"])


PAPER = Space("paper", KNOWN_OPERATIONS, nodes=4, reduction=True, keep="top2")
SMALL = Space(
    "small",
    ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"),
    nodes=2,
    reduction=False,
    keep="all",
)
SPACES: dict[str, Space] = {space.name: space for space in (PAPER, SMALL)}
"""The named spaces of ``search.space.name``."""


def named(name: str) -> Space:
    """A space by its name.

    Raises:
        InputError: If there is none.
    """
    if name not in SPACES:
        hint = nearest(name, SPACES)
        raise InputError(
            f"no search space {name!r}" + (f", did you mean {hint!r}?" if hint else ""),
            allowed=", ".join(SPACES),
        )
    return SPACES[name]
