"""Search spaces as data."""

from __future__ import annotations

from typing import Any

import pytest

from search.errors import InputError
from search.space import PAPER, SMALL, SPACES, Space, named


def test_the_papers_space_has_14_edges_and_8_operations_for_each_kind_of_cell() -> None:
    assert (len(PAPER.edges), len(PAPER.operations), PAPER.kinds) == (14, 8, ("normal", "reduce"))
    assert PAPER.edges[:6] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4))
    assert PAPER.rows == 28
    assert PAPER.size == 8**28


def test_the_small_space_has_1024_architectures() -> None:
    """4 operations on 5 edges, one architecture for both kinds of cell."""
    assert SMALL.edges == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert SMALL.rows == 5
    assert SMALL.size == 1024
    every = list(SMALL.choices())
    assert len(set(every)) == 1024
    assert every[1] == (0, 0, 0, 0, 1)


def test_rows_by_kind_are_one_table_where_reduction_cells_have_no_architecture_of_their_own() -> None:
    assert PAPER.by_kind(list(range(28))) == (list(range(14)), list(range(14, 28)))
    assert SMALL.by_kind(list(range(5))) == (list(range(5)), list(range(5)))


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_a_space_survives_its_file(space: Space) -> None:
    assert Space.from_dict(space.to_dict()) == space
    assert named(space.name) is space


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ["sep_conv_3x4"]}, "did you mean 'sep_conv_3x3'"),
        ({"operations": ["none"]}, "no operation is left"),
        ({"operations": ["skip_connect", "skip_connect"]}, "stands twice"),
        ({"operations": "skip_connect"}, "a list of names"),
        ({"nodes": 0}, "0 nodes"),
        ({"nodes": True}, "True nodes"),
        ({"nodes": 2.0}, "2.0 nodes"),
        ({"keep": "top3"}, "keep is 'top3'"),
        ({"reduction": 1}, "true or false"),
        ({"extra": 1}, "a mapping of"),
    ],
)
def test_what_is_no_space_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space.from_dict({**SMALL.to_dict(), **change})


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'small'"):
        named("smal")
