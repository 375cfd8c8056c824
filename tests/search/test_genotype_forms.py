"""Genotypes as other repositories write them: read where the meaning is clear, else one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.errors import InputError
from search.genotype import Genotype, published

FLAT = [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]] * 4
NESTED = [FLAT[:2]] * 4
HEAD = {"schema": 1, "name": "x", "source": "y"}
WHOLE = {**HEAD, "normal": NESTED, "reduce": NESTED}
DARTS_V2 = """
from collections import namedtuple
Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))
"""


def loaded(path: Path, value: Any) -> Genotype:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return Genotype.load(path)


@pytest.mark.parametrize(
    "value",
    [
        {**HEAD, "normal": FLAT, "reduce": FLAT},
        {**WHOLE, "normal_concat": [2, 3, 4, 5], "reduce_concat": [2, 3, 4, 5]},
        {"normal": FLAT, "normal_concat": [2, 3, 4, 5], "reduce": FLAT, "reduce_concat": [2, 3, 4, 5]},
        {"normal": NESTED, "reduce": NESTED, "connectN": None, "connects": None},
        {"normal": [[[*edge, 0.25] for edge in node] for node in NESTED], "reduce": NESTED},
        f"Genotype(normal={FLAT}, normal_concat=range(2, 6), reduce={FLAT}, reduce_concat=list(range(2, 6)))",
        f"Genotype({FLAT}, [2, 3, 4, 5], {FLAT}, range(2, 6))",
        f"best = genotypes.Genotype(normal={[tuple(e) for e in FLAT]}, normal_concat=[2,3,4,5], "
        f"reduce={tuple(tuple(e) for e in FLAT)}, reduce_concat=[2,3,4,5], connectN=None, connects=None)",
    ],
)
def test_forms_of_clear_meaning_are_read(tmp_path: Path, value: Any) -> None:
    assert loaded(tmp_path / "found.json", value).hash == Genotype.from_dict(WHOLE).hash


def test_darts_own_text_is_the_published_genotype(tmp_path: Path) -> None:
    found = loaded(tmp_path / "darts.txt", DARTS_V2)
    assert found.hash == published("DARTS_V2").hash
    assert (found.name, found.source) == ("darts", "darts.txt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0)], reduce=[])", "normal: found 1 nodes"),
        ("Genotype(normal=[('sep_conv_3x3', 1)])", "normal: has 1 edges; allowed: two a node"),
        (f"Genotype(normal={FLAT})", "the key 'reduce' is missing"),
        (f"Genotype(normal=__import__('os').listdir(), reduce={FLAT})", "normal: is no constant"),
        (
            f"Genotype(normal={FLAT}, normal_concat=range(2, n), reduce={FLAT})",
            "normal_concat: is no constant",
        ),
        (f"A = Genotype(normal={FLAT})\nB = Genotype(normal={FLAT})", "holds 2 genotypes; allowed: one"),
        ("Genotype(normal=[", "is no Python text"),
        ({**WHOLE, "normal_concat": [3, 4, 5]}, "normal_concat: is [3, 4, 5]; allowed: [2, 3, 4, 5]"),
        ({**WHOLE, "normal_concat": "2-5"}, "normal_concat: is 2-5; allowed: [2, 3, 4, 5]"),
        ({**WHOLE, "connectN": 3}, "unknown key 'connectN'"),
        (
            {**WHOLE, "normal": [[["conv_3x1_1x3", 0], ["sep_conv_3x3", 1]]] * 4},
            "unknown operation 'conv_3x1_1x3'",
        ),
        (
            {**WHOLE, "normal": [[["bin_conv_3x3", 0], ["sep_conv_3x3", 1]]] * 4},
            "normal, node 2: unknown operation",
        ),
        ({**WHOLE, "normal": [[[["a"], 0]]] * 4}, "normal, node 2: unknown operation ['a']"),
        ({**WHOLE, "normal": NESTED + NESTED[:1]}, "normal: found 5 nodes; allowed: a list of 4 nodes"),
        (
            {**WHOLE, "reduce": [[["skip_connect", 0], ["skip_connect", 0]]] + NESTED[:3]},
            "reduce, node 2: input 0",
        ),
        ({**WHOLE, "reduce": [[["skip_connect", 0, 1, 2]]] + NESTED[:3]}, "reduce, node 2: found"),
        ({**WHOLE, "reduce": [[["skip_connect", "0"]]] + NESTED[:3]}, "reduce, node 2: input '0'"),
        ({**WHOLE, "name": ["a"]}, "allowed: text"),
        (FLAT, "a genotype is a JSON object, not list"),
        ("DARTS_V2", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("Genotype(" * 20_000, "is no Python text"),
    ],
)
def test_what_cannot_be_built_is_one_line_with_its_field(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        loaded(tmp_path / "x.json", value)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "x.json"))
