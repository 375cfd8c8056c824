"""Every method on every space: the papers' is in test_run; here the small one and one that no paper has."""

from __future__ import annotations

from pathlib import Path

import pytest

from search import space as spaces
from search.genotype import Genotype
from search.methods import METHODS
from search.run import SearchRun, run_search
from search.space import SMALL, Space
from search.training import set_up
from tests.search import tiny

MADE_UP = Space("made_up", ("none", "avg_pool_3x3", "sep_conv_3x3"), nodes=3, reduction=True, keep="top2")
ALL = sorted(METHODS)


def search(method: str, space: Space, root: Path) -> SearchRun:
    settings = tiny.settings()
    changed = settings.space.model_copy(update={"name": space.name, "edges": space.keep})
    settings = settings.model_copy(update={"space": changed})
    fabric = set_up(tiny.COMPUTE, 0)
    return run_search(
        fabric, method, settings, 0, tiny.images(), resume_root=root, data_hash="tiny", quiet=True
    )


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spaces.SPACES, MADE_UP.name, MADE_UP)


@pytest.mark.parametrize("space", [SMALL, MADE_UP], ids=lambda space: space.name)
@pytest.mark.parametrize("method", ALL)
def test_a_method_finds_a_network_of_its_space(method: str, space: Space, tmp_path: Path) -> None:
    found = search(method, space, tmp_path).result
    genotype = found.genotype
    assert genotype.space == space
    assert Genotype.from_dict(genotype.to_dict()) == genotype
    assert (genotype.normal == genotype.reduce) or space.reduction
    edges = [len(node) for node in genotype.normal]
    assert edges == ([2, 3] if space.keep == "all" else [2, 2, 2])
    assert {edge.operation for node in genotype.normal for edge in node} <= set(space.kept)
    if "rounds.csv" in found.tables:
        survivors = found.tables["rounds.csv"][-1]["surviving_reduce"].split("|")
        assert len(survivors) == len(space.edges)
