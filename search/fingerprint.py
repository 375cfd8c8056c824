"""What code does, as a hash: the import closure of a module, without all that changes no number.

Left out are comments, docstrings and layout; what ``raise``, ``print`` and ``InputError`` are given; and the arguments
``help=`` and ``description=``. All other strings count: ``"bireal"`` decides numbers. The hash is taken over the
syntax tree in a notation of its own, so that it is the same for every version of Python. Sources in C and CUDA lie
beside the modules that load them and count too, without their comments.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Where the packages lie that are imported: a checkout, or the folder they were installed to."""
PACKAGES = ("search", "downstream", "pipelines")
SILENT_CALLS = ("print", "InputError")
SILENT_KEYWORDS = ("help", "description")
NATIVE = (".c", ".h", ".cu", ".cuh")
OPAQUE = frozenset({"search.fingerprint"})
"""Modules that decide no number and through which nothing is followed."""
REGISTRIES = {"search.methods": "METHODS"}
"""Tables by name from which a program takes one line: with ``only`` given, the other lines and their imports go."""


def fingerprint(
    entry: str,
    only: str | None = None,
    opaque: Collection[str] = OPAQUE,
    data: Collection[str] = (),
    root: Path = ROOT,
) -> str:
    """A word that stands for what a program does: ``code-`` and sixteen hex digits.

    Args:
        entry: The program's module, such as ``pipelines.search``.
        only: The line of :data:`REGISTRIES` that it uses, such as ``cp_nas``; None for all of them.
        opaque: Modules to leave out, with what only they import.
        data: Further files and folders, relative to ``root``, that decide its numbers.
        root: Where the packages lie.
    """
    digest = hashlib.sha256()
    for name, content in sorted(_parts(entry, only, opaque, data, root).items()):
        digest.update(f"{name} {content}\n".encode())
    return f"code-{digest.hexdigest()[:16]}"  # a word: YAML would read some digits as a number


def closure(
    entry: str, only: str | None = None, opaque: Collection[str] = OPAQUE, root: Path = ROOT
) -> list[str]:
    """Names of the modules that ``entry`` imports, directly or not, in functions too; ``entry`` included."""
    seen: set[str] = set()
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        if module in seen or module in opaque:
            continue
        seen.add(module)
        waiting += _imported(_path(module, root), module, _line(module, only), root)
        waiting += (
            [module.rsplit(".", 1)[0]] if "." in module else []
        )  # importing a.b runs a/__init__.py first
    return sorted(seen)


def _parts(
    entry: str, only: str | None, opaque: Collection[str], data: Collection[str], root: Path
) -> dict[str, str]:
    """The hash of every file that counts, by its name."""
    modules = {module: _path(module, root) for module in closure(entry, only, opaque, root)}
    parts = {module: _code(path, _line(module, only)) for module, path in modules.items()}
    native = {source for path in modules.values() for source in _native(path.parent)}
    named = {file for name in data for file in _files(root / name)}
    return parts | {str(file.relative_to(root)): _content(file) for file in native | named}


def _line(module: str, only: str | None) -> str | None:
    return only if module in REGISTRIES else None


def _path(module: str, root: Path) -> Path:
    base = root.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _native(folder: Path) -> Iterator[Path]:
    """C and CUDA sources in a package's folder and in those below it that are no packages themselves."""
    for path in folder.iterdir():
        if path.suffix in NATIVE:
            yield path
        elif path.is_dir() and path.name[0] not in "._" and not (path / "__init__.py").exists():
            yield from _native(path)


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [file for file in found if "__pycache__" not in file.parts]


def _content(file: Path) -> str:
    """The hash of a file that is no imported module: code without its comments, anything else byte for byte."""
    if file.suffix == ".py":
        return _code(file, None)
    if file.suffix in NATIVE:
        return _digest(_without_comments(file.read_text(encoding="utf-8")))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _without_comments(source: str) -> str:
    """C source with every comment and every run of white space as one space, but for the lines of the preprocessor."""
    pattern = r"(?://[^\n]*|/\*.*?\*/|[^\S\n])+|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
    shorter = re.sub(pattern, lambda m: m[0] if m[0][0] in "\"'" else " ", source, flags=re.DOTALL)
    lines = [line.strip() for line in shorter.splitlines() if line.strip()]
    return "".join(f"\n{line}\n" if line[0] == "#" or line[-1] == "\\" else f"{line} " for line in lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


def _code(path: Path, line: str | None) -> str:
    return _code_of(*_stamp(path), line)


@functools.lru_cache(maxsize=1024)
def _code_of(path: Path, _changed: int, _size: int, line: str | None) -> str:
    return _digest(notation(_tree(path, line)))


def _imported(path: Path, module: str, line: str | None, root: Path) -> list[str]:
    return _imported_of(*_stamp(path), module, line, root)


@functools.lru_cache(maxsize=1024)
def _imported_of(
    path: Path, _changed: int, _size: int, module: str, line: str | None, root: Path
) -> list[str]:
    """The suite's modules that a module imports, wherever the statement stands."""
    found: list[str] = []
    for node in ast.walk(_tree(path, line)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module, path)
            inner = [f"{source}.{alias.name}" for alias in node.names]
            found += [source, *(name for name in inner if _path(name, root).exists())]
    return [name for name in found if name.split(".")[0] in PACKAGES and _path(name, root).exists()]


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _tree(path: Path, line: str | None) -> ast.Module:
    """A module's syntax tree without what is for readers and checkers alone, and one line of its registry."""
    tree = _Silenced().visit(ast.parse(path.read_text(encoding="utf-8")))
    if line is not None:
        _keep_line(tree, line)
    return tree


class _Silenced(ast.NodeTransformer):
    """Takes out docstrings, messages, help texts and what only a type checker imports."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A string as a statement of its own is a docstring, of a module, class, function or field."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """``if TYPE_CHECKING:`` never runs."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """What is raised counts, what it is told does not."""
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Messages by the name of the function, help texts by the name of the argument."""
        if isinstance(node.func, ast.Name) and node.func.id in SILENT_CALLS:
            node.args, node.keywords = [], []
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in SILENT_KEYWORDS]
        return self.generic_visit(node)


def _keep_line(tree: ast.Module, line: str) -> None:
    """Of a registry ``NAME = {"key": ...}`` keep one line, and drop the imports that only the others used."""
    for statement in tree.body:
        target: ast.expr | None = statement.target if isinstance(statement, ast.AnnAssign) else None
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        if not (isinstance(target, ast.Name) and target.id in REGISTRIES.values()):
            continue
        table = statement.value  # type: ignore[attr-defined]
        if isinstance(table, ast.Dict):
            kept = [
                (key, value)
                for key, value in zip(table.keys, table.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == line
            ]
            table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for statement in list(tree.body):
        if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            statement.names = [a for a in statement.names if (a.asname or a.name) in used]
            if not statement.names:
                tree.body.remove(statement)


def notation(node: object) -> str:
    """A syntax tree as text: names of nodes and of those fields that hold something, in their order.

    Unlike :func:`ast.dump` it shows no empty field, which versions of Python differ in, and no place in the source.
    """
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={notation(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(notation(item) for item in node)}]"
    return repr(node)
