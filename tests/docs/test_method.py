"""docs/method.md and the code hold each other: what one cites, the other has."""

from __future__ import annotations

import importlib
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/method.md"
CODE = [path for package in ("search", "downstream", "pipelines") for path in (ROOT / package).rglob("*.py")]
CITED = re.compile(
    r"[Ff]igs?\.\s+(?:(?P<figure>4\.\d+))|(?P<algorithm>Algorithm\s+\d+)|(?P<number>\b4\.\d+\b)"
)
CONTEXT = re.compile(r"\(4\.\d|eq\.\s+4\.|[Ff]igs?\.\s+4\.|Table\s+4\.|Algorithm\s+\d")


@cache
def page() -> str:
    return PAGE.read_text()


def texts(path: Path) -> list[str]:
    """Docstrings and comments of a module, each group of lines as one text."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [token.string for token in tokens if token.type in (tokenize.STRING, tokenize.COMMENT)]


def citations(text: str) -> set[str]:
    """What a text cites: ``4.15`` for an equation, figure or table, ``Algorithm 9``."""
    if not CONTEXT.search(text):
        return set()
    found = set()
    for match in CITED.finditer(text):
        found.add(" ".join((match["figure"] or match["algorithm"] or match["number"]).split()))
    return found


def cited() -> list[tuple[str, str]]:
    return sorted(
        {
            (str(path.relative_to(ROOT)), name)
            for path in CODE
            for text in texts(path)
            for name in citations(text)
        }
    )


def test_the_code_cites_something() -> None:
    names = {name for _, name in cited()}
    assert {"4.15", "4.16", "4.33", "4.53", "4.8", "Algorithm 9", "Algorithm 10"} <= names


@pytest.mark.parametrize(("path", "name"), cited())
def test_what_the_code_cites_stands_on_the_page(path: str, name: str) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(name)}(?!\d)", page()), (
        f"{path} cites {name}; docs/method.md does not have it"
    )


def named() -> list[str]:
    return sorted(set(re.findall(r"`((?:search|downstream|pipelines)(?:\.\w+)*)`", page())))


def test_the_page_names_functions() -> None:
    assert len(named()) > 15


@pytest.mark.parametrize("name", named())
def test_what_the_page_names_exists(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"docs/method.md names {name}, which does not exist")


def test_every_equation_of_the_page_has_a_tag_and_the_page_says_what_tags_mean() -> None:
    for tag in ("[paper]", "[derived]", "[choice]"):
        assert page().count(tag) > 2
