from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import params, profile
from search.errors import InputError

QUICK = yaml.safe_load(profile.path_of("quick").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(QUICK)
    place = values
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    return values


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_is_valid_and_named_after_its_file(name: str) -> None:
    assert params.load(profile.path_of(name)).profile == name


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("serach", 1, "params.yaml: unknown key 'serach', did you mean 'search'?"),
        ("search.method.cp_nas.beta", 1.0, "unknown key 'search.method.cp_nas.beta', did you mean 'beta_p'?"),
        ("search.method.cp_nas.beta_p", "one", "search.method.cp_nas.beta_p is 'one'"),
        ("search.space.cells", 2, "search.space.cells is 2"),
        ("search.space.binary", 1, "search.space.binary is 1"),
        ("search.space.form", "papers", "search.space.form is 'papers'"),
        ("retrain.cifar10.batch_size", "64", "retrain.cifar10.batch_size is '64'"),
        ("runs.cifar10.networks", ["cp_nas-s9"], "runs.cifar10.networks names 'cp_nas-s9'; known: "),
        ("runs.imagenet.networks", ["random-s0"], "runs.detection needs the weights of cp_nas-s0-1bit-s0"),
        ("search.methods", ["cp-nas"], "search.methods names 'cp-nas', did you mean 'cp_nas'?"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        params.check(changed(path, value), "params.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named() -> None:
    values = copy.deepcopy(QUICK)
    del values["search"]["space"]["stem"]
    with pytest.raises(InputError, match=r"the key 'search\.space\.stem' is missing"):
        params.check(values, "params.yaml")


@pytest.mark.parametrize(("text", "message"), [("a: [1", "not valid YAML"), ("- 1\n", "holds no mapping")])
def test_no_params_at_all(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(InputError, match="no such file; run: python -m pipelines.profile use quick"):
        params.load(path)
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        params.load(path)


def test_use_keeps_your_changes_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "params.yaml"
    profile.use("quick", target)
    profile.use("ci", target)
    assert not (tmp_path / "params.yaml.orig").exists()
    target.write_text(target.read_text() + "# mine\n")
    profile.use("quick", target)
    assert (tmp_path / "params.yaml.orig").read_text().endswith("# mine\n")
    assert target.read_text() == profile.path_of("quick").read_text()
    with pytest.raises(InputError, match="did you mean 'paper'"):
        profile.use("papr", target)


@pytest.mark.parametrize("name", ["quick", "ci"])
def test_random_search_sees_as_many_images_as_cp_nas(name: str) -> None:
    """The methods of a profile are compared at one budget: 35 T epochs of Child and Parent."""
    method = params.load(profile.path_of(name)).search.method
    assert method.random.architectures * method.random.epochs == 70 * method.cp_nas.rounds
    assert method.random.architectures > 1


def test_folders_are_those_of_the_graph() -> None:
    found = {str(path) for path in params.check(QUICK, "params.yaml").folders()}
    assert {
        "search/cp_nas-s0",
        "networks/cp_nas-s0",
        "networks/bi-real-18",
        "detect/cp_nas-s0-real-s0",
    } <= found
