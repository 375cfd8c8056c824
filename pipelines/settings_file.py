"""Settings files as plain values: UTF-8, YAML 1.2's numbers as DVC reads them, every key once, bounded in size.

PyYAML reads YAML 1.1, in which ``1e-06`` is text, ``010`` is 8 and ``no`` is false; DVC reads and writes YAML 1.2. Two
readers of one file must agree, so the scalars here are those of YAML 1.2's core schema (yaml.org/spec/1.2.2, 10.3).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from search.errors import InputError

BYTES = 2**20
DEPTH = 20
VALUES = 100_000
DIGITS = 40
ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
"""Plain scalars by tag, as a pattern of the whole and the characters it can begin with; the first that fits."""


def resolvers() -> dict[str | None, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's table of implicit tags for :data:`SCALARS`: by first character (``""``: of an empty scalar)."""
    table: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, first in SCALARS:
        for character in [*first, *([""] if tag == "null" else [])]:
            rule = (f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})\\Z"))
            table.setdefault(character, []).append(rule)
    return table


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars, a limit to nesting, and no key twice."""

    yaml_implicit_resolvers = resolvers()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it is nested too deeply."""
        self.depth += 1
        if self.depth > DEPTH:
            raise _problem(f"more than {DEPTH} levels of nesting", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping; a key that stands twice is named with both lines."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem("a key must be a word", key.start_mark)
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                raise _problem(
                    f"the key {key.value!r} stands twice, first in line {lines[key.value]}", key.start_mark
                )
            lines[key.value] = line
        return node

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """An integer: decimal also with leading zeros, octal after 0o, hexadecimal after 0x."""
        text = node.value
        if len(text) > DIGITS:
            raise _problem(f"a number of {len(text)} digits", node.start_mark)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def construct_real(self, node: yaml.ScalarNode) -> float:
        """A float; infinities and NaN have a point before them."""
        text = node.value.lower()
        return float(text.replace(".", "", 1) if text[-1] in "fn" else text)


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_real)


def read(path: str | Path, missing: str | None = None) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: The file.
        missing: What to do where there is no such file, for the message.

    Raises:
        InputError: If there is no such file, or it is not what this module reads; names the line where there is one.
    """
    text = decoded(read_bytes(Path(path), missing), path)
    try:
        values = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"not valid YAML{place}: {what}", where=path) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML ({error})", where=path) from None
    if not isinstance(values, dict):
        raise InputError("holds no mapping of keys to values", where=path)
    _bounded(values, path)
    return values


def read_bytes(file: Path, missing: str | None = None) -> bytes:
    """The bytes of a settings file of ordinary size."""
    try:
        if file.exists() and not file.is_file():
            what = "a folder" if file.is_dir() else "no ordinary file"
            raise InputError(f"is {what}, a YAML file was expected", where=file)
        with file.open("rb") as stream:
            data = stream.read(BYTES + 1)
    except FileNotFoundError:
        raise InputError("no such file", where=file, mend=missing) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot be read ({getattr(error, 'strerror', None) or error})", where=file
        ) from None
    if len(data) > BYTES:
        raise InputError(f"is larger than {BYTES >> 20} MiB, which no settings file is", where=file)
    return data


def decoded(data: bytes, where: str | Path) -> str:
    """The text of UTF-8 bytes, with or without a mark at their start."""
    found = ENCODINGS.get(data[:2]) or ("UTF-16" if b"\0" in data[:4] else None)
    if found is None:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"byte 0x{data[error.start]:02x} in line {line}"
    raise InputError(f"is not UTF-8 text ({found})", where=where, mend="save it as UTF-8")


def _bounded(values: dict[str, Any], where: str | Path) -> None:
    """Refuse aliases that hold themselves, or that stand for more values than any settings have."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) in above:
            raise InputError("an alias stands inside of its own anchor", where=where)
        if id(value) not in sizes:
            above.add(id(value))
            sizes[id(value)] = 1 + sum(map(size, value.values() if isinstance(value, dict) else value))
            above.remove(id(value))
        return sizes[id(value)]

    if size(values) > VALUES:
        raise InputError(f"its aliases stand for more than {VALUES} values", where=where)


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)
