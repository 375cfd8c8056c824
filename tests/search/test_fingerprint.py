"""What changes a fingerprint and what does not, on small packages of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.fingerprint import closure, fingerprint

METHOD = '''
"""A program."""
import argparse
from search.helper import scale
from search.methods import METHODS


class Settings:
    rounds: int = 3
    """How many."""


def main(name):
    """Run."""
    parser = argparse.ArgumentParser(description="old text")
    parser.add_argument("--name", help="old help", default="bireal")
    if name is None:
        raise ValueError("no name", name)
    print("running", name)
    return METHODS[name](scale(2))  # a remark
'''
REGISTRY = """
from search.one import One
from search.two import Two

METHODS = {"one": One, "two": Two}


def names():
    return sorted(METHODS)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "search"
    (folder / "kernels" / "c").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "program.py": METHOD,
        "methods.py": REGISTRY,
        "helper.py": "def scale(x):\n    from search.kernels import fast\n    return fast.times(x)\n",
        "kernels/__init__.py": "",
        "kernels/fast.py": "def times(x):\n    return 2 * x\n",
        "kernels/c/block.c": "int f(int x) { /* doubles */ return 2 * x; } // end\n",
        "one.py": "class One:\n    pass\n",
        "two.py": "class Two:\n    pass\n",
        "unused.py": "x = 1\n",
        "table.json": '{"a": 1}',
    }.items():
        (folder / name).write_text(text)
    return tmp_path


def found(root: Path, only: str | None = None, entry: str = "search.program") -> str:
    return fingerprint(entry, only, data=["search/table.json"], root=root)


def changed(root: Path, name: str, old: str, new: str, only: str | None = None) -> bool:
    """Whether the fingerprint of the program differs after a change of a file."""
    before, path = found(root, only), root / "search" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = found(root, only)
    path.write_text(text)
    return after != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a remark", "# another remark, and a longer one"),
        ('"""A program."""', '"""Another docstring."""'),
        ('"""How many."""', '"""How often."""'),
        ('"""Run."""', '"""Run a method by its name."""'),
        ('"old text"', '"new text"'),
        ('"old help"', '"new help"'),
        ('ValueError("no name", name)', 'ValueError(f"the name is missing: {name}")'),
        ('print("running", name)', 'print(f"{name} is running", flush=True)'),
        ("scale(2))", "scale(\n        2\n    ))"),
        ("'bireal'", "'bireal'"),
    ],
)
def test_what_only_a_reader_sees_changes_nothing(root: Path, old: str, new: str) -> None:
    if old == "'bireal'":
        old, new = '"bireal"', "'bireal'"
    assert not changed(root, "program.py", old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("program.py", '"bireal"', '"ste"'),
        ("program.py", "scale(2)", "scale(3)"),
        ("program.py", "rounds: int = 3", "rounds: int = 4"),
        ("program.py", "ValueError", "KeyError"),
        ("program.py", 'print("running", name)', "name = name.lower()"),
        ("helper.py", "fast.times(x)", "-fast.times(x)"),
        ("kernels/fast.py", "2 * x", "3 * x"),
        ("kernels/c/block.c", "2 * x", "3 * x"),
        ("table.json", "1", "2"),
        ("one.py", "pass", "x = 1"),
    ],
)
def test_what_decides_numbers_changes_it(root: Path, name: str, old: str, new: str) -> None:
    """Imports in functions, C sources beside an imported module, and named data files included."""
    assert changed(root, name, old, new)


def test_comments_and_layout_of_c_do_not_count(root: Path) -> None:
    assert not changed(root, "kernels/c/block.c", "/* doubles */ return", "/* twice */\n    return")
    assert not changed(root, "kernels/c/block.c", "// end", "")
    path = root / "search/kernels/c/block.c"
    path.write_text('char *s = "// no comment";\n')
    assert changed(root, "kernels/c/block.c", "// no comment", "// nor this")


def test_a_method_depends_on_its_own_line_of_the_registry(root: Path) -> None:
    assert changed(root, "one.py", "pass", "x = 1", only="one")
    assert not changed(root, "two.py", "pass", "x = 1", only="one")
    assert not changed(root, "methods.py", '"two": Two', '"two": Two, "three": Two', only="one")
    assert not changed(root, "methods.py", "import Two", "import Two as Three", only="one")
    assert changed(root, "methods.py", '"one": One', '"one": One()', only="one")
    assert changed(root, "methods.py", "sorted(METHODS)", "list(METHODS)", only="one")
    assert found(root, "one") != found(root, "two") != found(root)


def test_the_closure_is_what_is_imported(root: Path) -> None:
    modules = closure("search.program", root=root)
    assert "search.kernels.fast" in modules and "search.unused" not in modules
    assert "search.helper" not in closure("search.program", opaque={"search.helper"}, root=root)
    assert "search.kernels.fast" not in closure("search.program", opaque={"search.helper"}, root=root)


def test_imports_for_type_checkers_alone_are_none(root: Path) -> None:
    path = root / "search/program.py"
    path.write_text(
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import search.unused\n{METHOD}"
    )
    assert "search.unused" not in closure("search.program", root=root)


def test_it_is_a_word_in_yaml(root: Path) -> None:
    """Digits alone, or 12e5, would be read as a number."""
    assert found(root).startswith("code-") and len(found(root)) == 21


def test_a_move_of_the_packages_changes_nothing(root: Path, tmp_path: Path) -> None:
    before = found(root)
    (root / "search").rename(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "other" / "search")
    assert found(tmp_path / "other") == before
