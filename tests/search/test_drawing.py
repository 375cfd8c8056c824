"""Drawings: text, DOT and SVG of a genotype."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from search.drawing import FAMILIES, family, state_name, to_dot, to_svg, to_text
from search.genotype import OPERATIONS, Genotype, derive, published, published_names
from tests.golden import FOLDER

SVG = "{http://www.w3.org/2000/svg}"


def _all_edges() -> Genotype:
    scores = [[math.sin(1.7 * edge + 0.9 * k) for k in range(8)] for edge in range(14)]
    return derive(scores, scores, name="all edges", source="test", edges="all")


GENOTYPES = [*map(published, published_names()), _all_edges()]


def _boxes(cell: ElementTree.Element, kinds: tuple[str, ...]) -> list[tuple[float, float, float, float]]:
    found = []
    for rectangle in cell.iter(f"{SVG}rect"):
        if any(kind in rectangle.get("class", "").split() for kind in kinds):
            x, y, width, height = (float(rectangle.get(key, "nan")) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def test_text_is_one_equation_a_node() -> None:
    assert to_text(published("DDPNAS_MCN_2")) == (FOLDER / "genotype.txt").read_text(encoding="utf-8")


def test_states_have_the_names_of_the_papers() -> None:
    assert [state_name(state) for state in range(7)] == ["c_{k-2}", "c_{k-1}", "0", "1", "2", "3", "c_k"]


def test_every_operation_has_a_family() -> None:
    assert {family(operation) for operation in OPERATIONS} == set(FAMILIES)


@pytest.mark.parametrize("genotype", GENOTYPES, ids=lambda genotype: genotype.name)
def test_svg_shows_every_edge_without_overlap(genotype: Genotype) -> None:
    root = ElementTree.fromstring(to_svg(genotype))
    cells = root.findall(f"{SVG}g")
    assert len(cells) == 2
    for drawn, cell in zip(cells, (genotype.normal, genotype.reduce), strict=True):
        labels = sorted(t.text for t in drawn.iter(f"{SVG}text") if "label" in t.get("class", "").split())
        assert labels == sorted(edge.operation for node in cell for edge in node)
        names = ["".join(t.itertext()) for t in drawn.iter(f"{SVG}text") if t.get("class") == "name"]
        assert names == ["ck−2", "ck−1", "0", "1", "2", "3", "ck"]
        boxes = _boxes(drawn, ("pill", "state"))
        assert len(boxes) == len(labels) + 7
        for one, other in itertools.combinations(boxes, 2):
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


@pytest.mark.parametrize("genotype", GENOTYPES, ids=lambda genotype: genotype.name)
def test_svg_lines_do_not_run_through_boxes(genotype: Genotype) -> None:
    """Straight runs of a lane pass between the boxes of a column, never behind one."""
    for drawn in ElementTree.fromstring(to_svg(genotype)).findall(f"{SVG}g"):
        boxes = _boxes(drawn, ("pill", "state"))
        for path in drawn.iter(f"{SVG}path"):
            run = re.fullmatch(r"M([-\d.]+) ([-\d.]+)H([-\d.]+)", path.get("d", ""))
            if run:
                left, y, right = map(float, run.groups())
                assert not any(x0 < right and left < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes)


@pytest.mark.parametrize("genotype", GENOTYPES, ids=lambda genotype: genotype.name)
def test_svg_stays_within_its_size(genotype: Genotype) -> None:
    root = ElementTree.fromstring(to_svg(genotype))
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for drawn in root.findall(f"{SVG}g"):
        left, top = map(float, re.findall(r"[-\d.]+", drawn.get("transform", "")))
        for x0, y0, x1, y1 in _boxes(drawn, ("pill", "state")):
            assert x0 >= 0 and left + x1 <= width and y0 >= 0 and top + y1 <= height


def test_drawings_are_a_function_of_the_genotype() -> None:
    first, second = (Genotype.from_dict(published("DARTS_V1").to_dict()) for _ in range(2))
    assert (to_svg(first), to_dot(first)) == (to_svg(second), to_dot(second))


def test_svg_follows_dark_mode_and_loads_nothing() -> None:
    text = to_svg(published("DARTS_V2"))
    assert "prefers-color-scheme:dark" in text
    assert "href" not in text and "<script" not in text and "@import" not in text and "url(" not in text


def test_names_are_escaped() -> None:
    value = {**published("DARTS_V2").to_dict(), "name": 'a<b>&"c"\\', "source": "</desc>"}
    genotype = Genotype.from_dict(value)
    assert ElementTree.fromstring(to_svg(genotype)).findtext(f"{SVG}title", "").startswith('a<b>&"c"\\')
    assert to_dot(genotype).startswith('digraph "a<b>&\\"c\\"\\\\" {')


def test_dot_has_every_edge_with_its_label() -> None:
    genotype = published("DDPNAS_MCN_2")
    text = to_dot(genotype)
    for kind, cell in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        for index, node in enumerate(cell, 2):
            for edge in node:
                assert f'{kind}_{edge.source} -> {kind}_{index} [label="{edge.operation}"' in text
            assert f"{kind}_{index} -> {kind}_6 [style=dashed]" in text
