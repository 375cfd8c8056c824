"""Genotypes: files, hashes, derivation, published data, collapse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import InputError
from search.genotype import (
    EDGES,
    OPERATIONS,
    Genotype,
    collapse,
    derive,
    derive_from_alpha,
    published,
    published_names,
)
from search.space import PAPER, SMALL
from tests.golden import golden

Cells = list[list[list[Any]]]


def _dictionary(**changes: Any) -> dict[str, Any]:
    node = [["sep_conv_3x3", 0], ["skip_connect", 1]]
    value: dict[str, Any] = {
        "schema": 1,
        "name": "n",
        "source": "s",
        "normal": [node] * 4,
        "reduce": [node] * 4,
    }
    return {**value, **changes}


def _plain(cell: Any) -> Cells:
    return [[list(edge) for edge in node] for node in cell]


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    """Any valid genotype: one edge or more a node, each input at most once."""
    cells = []
    for _ in range(2):
        cell = []
        for node in range(2, 6):
            sources = draw(st.lists(st.integers(0, node - 1), min_size=1, max_size=node, unique=True))
            cell.append([[draw(st.sampled_from(OPERATIONS)), source] for source in sources])
        cells.append(cell)
    name = draw(st.text(max_size=8))
    return Genotype.from_dict(
        {"schema": 1, "name": name, "source": "", "normal": cells[0], "reduce": cells[1]}
    )


def test_edges_are_fourteen_in_the_order_of_alpha() -> None:
    assert len(EDGES) == 14
    assert EDGES[:6] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4))


def test_derivation_from_alpha() -> None:
    expected = golden("derivation")
    assert tuple(expected["operations"]) == OPERATIONS
    alpha = [[math.sin(1.7 * edge + 0.9 * k) for k in range(8)] for edge in range(14)]
    found = derive_from_alpha(alpha, alpha, name="alpha", source="test")
    assert _plain(found.normal) == expected["cell"]
    assert found.reduce == found.normal


def test_derivation_of_all_edges_keeps_fourteen() -> None:
    alpha = [[math.sin(1.7 * edge + 0.9 * k) for k in range(8)] for edge in range(14)]
    found = derive(alpha, alpha, name="alpha", source="test", edges="all")
    assert [(edge.source, node) for node, edges in enumerate(found.normal, 2) for edge in edges] == list(
        EDGES
    )
    assert all(edge.operation != "none" for node in found.normal for edge in node)


def test_derivation_never_keeps_none_and_breaks_ties_by_order() -> None:
    flat = [[9.0] + [1.0] * 7 for _ in range(14)]
    found = derive(flat, flat, name="flat", source="test")
    assert _plain(found.normal) == [[["max_pool_3x3", 0], ["max_pool_3x3", 1]]] * 4


def test_derivation_with_edge_weights_prefers_the_weighted_edge() -> None:
    flat = [[0.0, 1.0] + [0.5] * 6 for _ in range(14)]
    weights = [1.0 if source in (0, node - 1) else 0.1 for source, node in EDGES]
    found = derive(flat, flat, name="flat", source="test", edge_weights=(weights, weights))
    assert [[edge.source for edge in node] for node in found.normal] == [[0, 1], [0, 2], [0, 3], [0, 4]]


def test_derivation_ignores_dropped_operations() -> None:
    scores = [[-math.inf] * 8 for _ in range(14)]
    for row in scores:
        row[6] = -3.0
    found = derive(scores, scores, name="one left", source="test")
    assert {edge.operation for node in found.normal for edge in node} == {"dil_conv_3x3"}


def test_the_small_space_keeps_every_edge_and_has_one_architecture() -> None:
    scores = [[float(k == edge % 4) for k in range(4)] for edge in range(5)]
    found = derive(scores, scores, name="small", source="test", space=SMALL)
    operations = SMALL.operations
    assert _plain(found.normal) == [
        [[operations[0], 0], [operations[1], 1]],
        [[operations[2], 0], [operations[3], 1], [operations[0], 2]],
    ]
    read = Genotype.from_dict(json.loads(json.dumps(found.to_dict())))
    assert (read, read.space) == (found, SMALL)
    different = found.to_dict() | {"reduce": [[[operations[1], 0]], [[operations[1], 1]]]}
    with pytest.raises(InputError, match="one architecture for both"):
        Genotype.from_dict(different)


def test_files_of_the_papers_space_stay_as_they_were() -> None:
    """Their hashes stand in records: the space neither enters them nor the file."""
    found = published("DDPNAS_MCN_2")
    assert found.space == PAPER
    assert "space" not in found.to_dict()
    assert found.hash.startswith("76cce2f90e3e")


@pytest.mark.parametrize("name", ["DARTS_V2", "PC_DARTS_cifar", "DDPNAS_MCN_2"])
def test_published_genotypes_are_the_printed_ones(name: str) -> None:
    found, expected = published(name), golden("genotypes")[name]
    assert found.name == name
    assert (_plain(found.normal), _plain(found.reduce)) == (expected["normal"], expected["reduce"])


def test_every_published_genotype_has_a_source_and_its_own_hash() -> None:
    found = [published(name) for name in published_names()]
    assert all(len(genotype.source) > 20 for genotype in found)
    assert len({genotype.hash for genotype in found}) == len(found)


def test_an_unknown_published_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no published genotype 'DARTS_V3', did you mean 'DARTS_V[12]'"):
        published("DARTS_V3")


@settings(max_examples=50, deadline=None)
@given(genotypes())
def test_files_keep_everything(tmp_path_factory: pytest.TempPathFactory, genotype: Genotype) -> None:
    path = tmp_path_factory.mktemp("genotype") / "genotype.json"
    genotype.save(path)
    read = Genotype.load(path)
    assert read == genotype
    assert read.hash == genotype.hash


@settings(max_examples=50, deadline=None)
@given(genotypes(), st.randoms())
def test_the_hash_is_of_the_architecture_alone(genotype: Genotype, random: Any) -> None:
    value = genotype.to_dict()
    for cell in (value["normal"], value["reduce"]):
        for node in cell:
            random.shuffle(node)
    same = Genotype.from_dict({**value, "name": "another", "source": "elsewhere"})
    assert same.hash == genotype.hash


def test_the_hash_changes_with_an_operation_an_input_or_a_cell() -> None:
    hashes = {Genotype.from_dict(_dictionary()).hash}
    for change in ([["sep_conv_5x5", 0], ["skip_connect", 1]], [["sep_conv_3x3", 1], ["skip_connect", 0]]):
        for key in ("normal", "reduce"):
            hashes.add(Genotype.from_dict(_dictionary(**{key: [change] + _dictionary()[key][1:]})).hash)
    assert len(hashes) == 5


GOOD = [["sep_conv_3x3", 0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 3}, "g.json: schema 3 is of another version; allowed: 1, 2"),
        ({"schema": 2}, "g.json: the key 'space' is missing"),
        ({"schema": 2, "space": "small"}, "g.json, space: found 'small'"),
        (
            {"schema": 2, "space": SMALL.to_dict()},
            "g.json, normal: found 4 nodes; allowed: a list of 2 nodes",
        ),
        ({"space": SMALL.to_dict()}, "unknown key 'space'"),
        ({"schema": True}, "schema True"),
        ({"name": 3}, "name is 3; allowed: text"),
        ({"concat": [2, 3]}, "unknown key 'concat'"),
        ({"normal": [GOOD] * 3}, "g.json, normal: found 3 nodes; allowed: a list of 4 nodes"),
        ({"reduce": "x"}, "g.json, reduce: found 'x'"),
        ({"normal": [GOOD, [], GOOD, GOOD]}, "g.json, normal, node 3: found []"),
        (
            {"normal": [[["conv_9x9", 0]]] + [GOOD] * 3},
            "g.json, normal, node 2: unknown operation 'conv_9x9'",
        ),
        ({"normal": [[["sep_conv_3x4", 0]]] + [GOOD] * 3}, "did you mean 'sep_conv_3x3'?"),
        (
            {"normal": [[["skip_connect", 2]]] + [GOOD] * 3},
            "node 2: input 2 of skip_connect; allowed: 0 to 1",
        ),
        ({"normal": [[["skip_connect", -1]]] + [GOOD] * 3}, "input -1 of skip_connect"),
        ({"normal": [[["skip_connect", True]]] + [GOOD] * 3}, "input True of skip_connect"),
        ({"normal": [[["skip_connect"]]] + [GOOD] * 3}, "found ['skip_connect']"),
        ({"normal": [GOOD * 2] + [GOOD] * 3}, "node 2: input 0 is used 2 times; allowed: once"),
    ],
)
def test_errors_name_the_place_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Genotype.from_dict(_dictionary(**changes), where="g.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("operation", [["sep_conv_3x3"], {}, None, 3])
def test_an_operation_that_is_no_text_is_refused(operation: Any) -> None:
    with pytest.raises(InputError, match="unknown operation"):
        Genotype.from_dict(_dictionary(normal=[[[operation, 0]]] + [GOOD] * 3))


def test_a_missing_key_is_named() -> None:
    value = _dictionary()
    del value["reduce"]
    with pytest.raises(InputError, match="the key 'reduce' is missing"):
        Genotype.from_dict(value)


@pytest.mark.parametrize("text", ["[]", "3", "{", ""])
def test_files_that_are_no_genotype_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    with pytest.raises(InputError, match="g.json"):
        Genotype.load(path)


def test_the_file_form_is_the_fixed_one(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    published("DARTS_V2").save(path)
    value = json.loads(path.read_text())
    assert list(value) == ["schema", "name", "source", "normal", "reduce"]
    assert value["schema"] == 1
    assert value["normal"] == golden("genotypes")["DARTS_V2"]["normal"]


def _cell(*operations: str) -> Cells:
    pairs = iter(operations)
    return [[[next(pairs), 0], [next(pairs), 1]] for _ in range(4)]


def test_the_robustdarts_example_has_collapsed() -> None:
    """RobustDARTS, space S1, seed 1 (12.46 % error): seven skip connections and one dil_conv_3x3."""
    genotype = Genotype.from_dict(_dictionary(normal=_cell(*["skip_connect"] * 7, "dil_conv_3x3")))
    found = collapse(genotype)
    assert (found.skip_connects, found.depth, found.parameter_free_share, found.collapsed) == (
        7,
        1,
        7 / 8,
        True,
    )


def test_a_cell_of_pools_has_collapsed() -> None:
    found = collapse(Genotype.from_dict(_dictionary(normal=_cell(*["max_pool_3x3", "avg_pool_3x3"] * 4))))
    assert found.collapsed and found.skip_connects == 0 and found.parameter_free_share == 1.0


@pytest.mark.parametrize("name", published_names())
def test_published_genotypes_have_not_collapsed(name: str) -> None:
    assert not collapse(published(name)).collapsed


def test_depth_is_the_longest_chain() -> None:
    assert collapse(published("DDPNAS_MCN_2")).depth == 4
    assert collapse(published("PC_DARTS_cifar")).depth == 1
    assert collapse(published("DARTS_V2")).depth == 2
