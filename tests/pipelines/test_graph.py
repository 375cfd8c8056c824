"""The code dependencies of dvc.yaml are the imports of each stage's program, no more and no less.

``python -m tests.pipelines.test_graph`` rewrites dvc.yaml's lists from the imports.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGES = ("search", "downstream", "pipelines")
PLUMBING = {
    "pipelines.params",
    "pipelines.stage",
    "pipelines.record",
    "pipelines.provenance",
}
"""Modules that read, check or describe and decide no number; nothing is followed through them."""
ENTRY = {
    "check": "pipelines.check",
    "prepare_cifar10": "pipelines.datasets.cifar10",
    "prepare_imagenet": "pipelines.datasets.image_folder",
    "prepare_detection": "pipelines.datasets.detection",
    "prepare_reid": "pipelines.datasets.orl",
    "search": "pipelines.search",
    "derive": "pipelines.derive",
    "adopt": "pipelines.derive",
    "cost": "pipelines.cost",
    "retrain_cifar10": "pipelines.retrain",
    "retrain_imagenet": "pipelines.retrain",
    "evaluate_cifar10": "pipelines.evaluate",
    "evaluate_imagenet": "pipelines.evaluate",
    "detect": "pipelines.detect",
    "reid": "pipelines.reid",
    "reid_zoo": "pipelines.reid",
    "collect": "pipelines.collect",
    "tables": "pipelines.tables",
}
DATA_FILES = {
    "adopt": ["search/published"],
    "detect": ["downstream/detection/configs"],
    "tables": [
        "pipelines/checklist.yaml",
        "pipelines/claims.yaml",
        "pipelines/literature.yaml",
        "pipelines/templates",
    ],
}


@cache
def graph() -> Any:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def closure(entry: str) -> list[str]:
    """Files of all modules that ``entry`` imports, directly or not, except through plumbing."""
    seen: set[str] = set()
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        if module in seen or module in PLUMBING:
            continue
        seen.add(module)
        waiting += graph().find_modules_directly_imported_by(module)
    files = {module.replace(".", "/") for module in seen}
    paths = [f"{name}/__init__.py" if (ROOT / name).is_dir() else f"{name}.py" for name in files]
    return sorted(path for path in paths if (ROOT / path).stat().st_size > 0 and not _only_text(ROOT / path))


def _only_text(path: Path) -> bool:
    """Whether a package's __init__ is nothing but its docstring."""
    import ast

    body = ast.parse(path.read_text()).body
    return path.name == "__init__.py" and len(body) <= 1


def wanted(stage: str) -> list[str]:
    return sorted([*closure(ENTRY[stage]), *DATA_FILES.get(stage, [])])


def code_deps(values: dict[str, Any]) -> list[str]:
    return [dep for dep in values.get("deps", []) if dep.startswith(PACKAGES)]


def stages() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


@pytest.mark.parametrize("stage", sorted(ENTRY))
def test_a_stage_depends_on_exactly_what_it_imports(stage: str) -> None:
    assert code_deps(stages()[stage]) == wanted(stage), "run: python -m tests.pipelines.test_graph"


def test_every_stage_is_checked() -> None:
    assert sorted(stages()) == sorted(ENTRY)


def test_no_output_is_persistent() -> None:
    """`persist: true` would feed a stale output to changed code and switch the run cache off."""
    assert "persist" not in (ROOT / "dvc.yaml").read_text()


def rewrite() -> None:
    """Put the wanted code dependencies into dvc.yaml."""
    yaml = YAML()
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = ROOT / "dvc.yaml"
    document = yaml.load(path)
    for stage, values in document["stages"].items():
        others = [dep for dep in values.get("deps", []) if not dep.startswith(PACKAGES)]
        values["deps"] = [*others, *wanted(stage)]
    yaml.dump(document, path)


if __name__ == "__main__":
    rewrite()
