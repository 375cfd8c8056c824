"""dvc.yaml and code.yaml: every stage depends on the fingerprint of its own program, and the file is current."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from pipelines import code, layers
from pipelines.datasets import sources
from search.fingerprint import closure
from search.methods import METHODS

ROOT = Path(__file__).parents[2]
TASKS = ("cifar10", "imagenet")


def stages() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def keys_of(stage: dict[str, Any]) -> list[str]:
    """The keys of code.yaml that a stage names."""
    return [key for item in stage["params"] if isinstance(item, dict) for key in item[str(code.NAME)]]


def test_code_yaml_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert yaml.safe_load(code.NAME.read_text()) == code.current(), code.REFRESH


@pytest.mark.parametrize("name", sorted(stages()))
def test_a_stage_names_the_fingerprint_of_the_program_it_runs(name: str) -> None:
    """The module after `python -m`, and, for a data set, the module that makes it."""
    stage = stages()[name]
    program = re.match(r"python -m (\S+)", stage["cmd"])[1]
    keys = keys_of(stage)
    if name == "search":
        assert keys == ["search.${item.method}"] and program == code.SEARCH
    elif program == "pipelines.prepare":
        assert keys[0] == name
        assert keys[1:] == [f"pictures.{task}" for task in sources.KINDS if name == f"prepare_{task}"]
    else:
        assert code.PROGRAMS[keys[0]].module == program
        assert keys[1:] == [f"teacher.{task}" for task in TASKS if name == f"retrain_{task}"]


def test_no_stage_depends_on_a_file_of_code() -> None:
    """Bytes would run a stage again for a comment."""
    for stage in stages().values():
        assert not [
            dep for dep in stage.get("deps", []) if dep.startswith(("search", "downstream", "pipelines"))
        ]


def test_the_graph_is_short_enough_to_be_read() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) < 300 and max(map(len, text.splitlines())) < 120


def test_every_variant_of_every_profile_has_a_key() -> None:
    known = yaml.safe_load((ROOT / code.NAME).read_text())["search"]
    assert set(METHODS) <= set(known)
    for name in layers.names():
        assert set(layers.values_of(name)["search"]["methods"]) <= set(known)


def test_a_search_holds_its_own_methods_code_alone() -> None:
    found = {method: set(closure(code.SEARCH, method, code.PLUMBING)) for method in METHODS}
    assert "search.strategies.random" in found["random"]
    assert not {"search.strategies.random", "search.strategies.darts", "search.tangent"} & found["cp_nas"]
    assert {"search.strategies.cp_nas", "search.binary", "search.training"} <= found["bnas"]
    assert {"search.tangent", "search.curvature"} <= found["dcp_nas"]
    assert not any(module.startswith(("pipelines.params", "pipelines.stage")) for module in found["cp_nas"])


def test_the_zoo_does_not_depend_on_our_trainer() -> None:
    assert not [module for module in code.parts_of("reid") if "classification" in module]
    assert "downstream.classification.trainer" not in code.parts_of("evaluate")
    assert "downstream.classification.trainer" not in code.parts_of("cost")
    assert "downstream.classification.trainer" in code.parts_of("retrain")


def test_data_that_decides_numbers_is_part_of_its_program() -> None:
    assert "search/published" in code.parts_of("adopt")
    assert "downstream/detection/configs" in code.parts_of("detect")
    for program in code.PROGRAMS.values():
        assert all((ROOT / name).exists() for name in program.data)


def test_no_output_is_persistent() -> None:
    """`persist: true` would feed a stale output to changed code and switch the run cache off."""
    assert "persist" not in (ROOT / "dvc.yaml").read_text()
