"""Architectures as text and as genotypes."""

from __future__ import annotations

import pytest

from search.benchmark.names import SHORT, choices_of, describe, genotype_of, parse
from search.errors import InputError
from search.genotype import published
from search.space import KNOWN_OPERATIONS, PAPER, SMALL


def test_every_operation_has_a_short_name_of_its_own() -> None:
    assert set(SHORT) == set(KNOWN_OPERATIONS)
    assert len(set(SHORT.values())) == len(SHORT)


def test_text_and_genotype_keep_every_architecture_of_the_small_space() -> None:
    seen = set()
    for choices in SMALL.choices():
        text = describe(choices, SMALL)
        assert parse(text, SMALL) == choices
        genotype = genotype_of(choices, SMALL)
        assert choices_of(genotype, SMALL) == choices
        seen.add(genotype.hash)
    assert len(seen) == SMALL.size


def test_two_kinds_of_cell_are_one_text() -> None:
    choices = tuple(range(1, 8)) * 4
    genotype = genotype_of(choices, PAPER)
    assert genotype.normal[0] == (("max_pool_3x3", 0), ("avg_pool_3x3", 1))
    assert choices_of(genotype, PAPER) == choices


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("skip|sep3|sep3|max|dil4", "skip|sep3|sep3|max|dil3"),
        ("skip|sep3", "skip|sep3|skip|skip|skip"),
        ("skip|skip|skip|skip|skip|max", "skip|skip|skip|skip|skip"),
    ],
)
def test_errors_name_the_nearest_valid_text(text: str, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, SMALL)
    assert f"the nearest is {nearest!r}" in str(caught.value)
    assert parse(nearest, SMALL)


def test_a_genotype_of_another_space_is_refused() -> None:
    with pytest.raises(InputError, match="other edges than the space 'small'"):
        choices_of(published("DDPNAS_MCN_2"), SMALL)
