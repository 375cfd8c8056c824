from __future__ import annotations

import copy
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import check, layers, params, profile
from search.errors import InputError
from search.methods import METHODS

QUICK = yaml.safe_load(profile.path_of("quick").read_text())
VARIANT = QUICK["search"]["method"]["cp_nas"] | {"method": "cp_nas"}
ABLATIONS = [name for name in profile.names() if layers.own(name).get("base") == "study"]


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
    assert profile.load(name).profile == name


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
        (
            "search.method.cp_nas2",
            {"rounds": 1},
            "search.method.cp_nas2: no search method 'cp_nas2', did you mean",
        ),
        (
            "search.method.cp_nas2",
            VARIANT | {"method": "cpnas"},
            "no search method 'cpnas', did you mean 'cp_nas'?",
        ),
        ("search.method.cp_nas2", {"method": "cp_nas"}, "the key 'search.method.cp_nas2.beta_p' is missing"),
        (
            "search.method.cp_nas2",
            VARIANT | {"beta": 1.0},
            "'search.method.cp_nas2.beta', did you mean 'beta_p'?",
        ),
        ("search.method.cp_nas2", VARIANT | {"rounds": 0}, "search.method.cp_nas2.rounds is 0"),
        ("search.method.cp_nas2", 3, "search.method.cp_nas2: is 3, a mapping of settings was expected"),
        ("search.method.cp-nas", VARIANT, "search.method.cp-nas: a variant's name has small letters"),
        ("search.method.bnas", VARIANT, "search.method.bnas: is the name of a method"),
        (
            "search.method.cp_nas2",
            VARIANT | {"space": {"binery": True}},
            "unknown key 'search.method.cp_nas2.space.binery', did you mean 'binary'?",
        ),
        (
            "search.method.cp_nas2",
            VARIANT | {"space": {"augmentation": {"flipp": True}}},
            "'search.method.cp_nas2.space.augmentation.flipp', did you mean 'flip'?",
        ),
        (
            "search.method.cp_nas2",
            VARIANT | {"space": {"cells": 2}},
            "search.method.cp_nas2.space.cells is 2",
        ),
        ("search.method.cp_nas2", VARIANT | {"space": None}, "search.method.cp_nas2.space is None"),
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
    method = profile.load(name).search.method
    random: Any = method["random"].settings
    cp_nas: Any = method["cp_nas"].settings
    assert random.architectures * random.epochs == 70 * cp_nas.rounds
    assert random.architectures > 1


def images(method: str, own: Any, space: Any) -> int:
    """Images that a method puts through training steps, those of alpha steps and of the tangent's pass included."""
    match method:
        case "random" | "regularised_evolution" | "local_search":
            epochs = own.architectures * own.epochs
        case "cp_nas":
            epochs = 35 * own.rounds * (2 if own.parent else 1)
        case "bnas":
            epochs = own.warm_up + 2 * 7 * own.alpha_epochs + 19 * own.rounds
        case "dcp_nas":
            tangent = own.tangent * space.validation_images
            return own.rounds * (2 * (own.parent_epochs + own.child_epochs) * space.train_images + tangent)
        case _:
            epochs = 2 * own.epochs - getattr(own, "warm_up", 0)
    return epochs * space.train_images


@pytest.mark.parametrize("name", ["study", *ABLATIONS])
def test_a_study_has_one_budget_and_paired_seeds(name: str) -> None:
    """All methods see the same images; without the tangent DCP-NAS saves a pass a round, 4 per cent."""
    search = profile.load(name).search
    budgets = {
        variant: images(entry.method, entry.settings, search.space_of(variant))
        for variant, entry in search.method.items()
        if variant in search.methods
    }
    assert all(0.94 * 40_320 < found <= 40_320 for found in budgets.values()), budgets
    assert len(search.seeds) >= 3
    if name == "study":
        del budgets["dcp_nas"]
        assert set(budgets.values()) == {40_320} and set(search.methods) == set(METHODS)


STANDS_FOR_THE_METHOD = [name for name in profile.names() if name not in ("ci", "ablation-rounds")]


@pytest.mark.parametrize("name", STANDS_FOR_THE_METHOD)
def test_the_child_decides_and_few_nodes_are_left_to_ties(name: str) -> None:
    """CP-NAS's base form has a beta_P at which both networks count, and rounds at which survivors' scores differ."""
    own: Any = profile.load(name).search.method["cp_nas"].settings if _has_cp_nas(name) else None
    if own is not None:
        assert 0 < own.beta_p < 2 and own.beta_p != 1 and own.parent
        assert own.rounds >= 3


def _has_cp_nas(name: str) -> bool:
    return "cp_nas" in profile.load(name).search.method


@pytest.mark.parametrize("name", profile.names())
def test_terms_of_dcp_nas_are_shares_where_they_stand_for_the_method(name: str) -> None:
    """As printed they are a variant that says so."""
    for variant, entry in profile.load(name).search.method.items():
        if entry.method == "dcp_nas":
            own: Any = entry.settings
            printed = {own.tangent_scaling, own.reconstruction_scaling} == {"printed"}
            assert printed == variant.endswith("_printed")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_study_with_other_variants(name: str) -> None:
    """Only methods, seeds and runs differ; each variant differs from its base form, which is there too."""
    found, study = profile.values_of(name), profile.values_of("study")
    for section in set(found) - {"profile", "search", "runs"}:
        assert found[section] == study[section]
    assert {key for key in found["search"] if found["search"][key] != study["search"][key]} <= {
        "methods",
        "method",
        "seeds",
    }
    search = profile.load(name).search
    assert sorted(search.methods) == sorted(search.method) and len(search.method) > 1
    for variant, entry in search.method.items():
        base = search.method[entry.method]
        assert (variant == entry.method) == (entry == base)
    assert len(found["runs"]["cifar10"]["networks"]) == len(search.methods) * len(search.seeds)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_profile_with_a_base_becomes_a_complete_file(name: str, tmp_path: Path) -> None:
    """What `use` writes is complete, says whence it comes, and reads back as the same values."""
    target = tmp_path / "params.yaml"
    profile.use(name, target)
    text = target.read_text()
    assert text.startswith(f"# Profile {name}: study with the changes in ")
    assert yaml.safe_load(text) == profile.values_of(name)
    assert params.load(target) == profile.load(name)
    assert "base:" not in text and "&id" not in text


def test_profiles_that_cannot_be_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such base, bases in a circle, a base that does not fit: each one line; bases may have bases."""
    monkeypatch.setattr(layers, "FOLDER", tmp_path)
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    (tmp_path / "one.yaml").write_text("{base: quick, profile: one, search: {method: {cp_nas: {rounds: 3}}}}")
    (tmp_path / "two.yaml").write_text("{base: five}")
    (tmp_path / "five.yaml").write_text("{base: two}")
    (tmp_path / "six.yaml").write_text(
        "{base: one, profile: six, search: {method: {cp_nas_b: {method: cp_nas}}}}"
    )
    (tmp_path / "three.yaml").write_text("{base: qick}")
    (tmp_path / "four.yaml").write_text("{base: quick, search: [1]}")
    assert profile.values_of("one")["search"]["method"]["cp_nas"]["rounds"] == 3
    assert "random" not in profile.values_of("one")["search"]["method"]
    assert profile.values_of("six")["search"]["method"]["cp_nas_b"]["rounds"] == 3
    for name, message in (
        ("one", "search.methods names 'dcp_nas'"),
        ("two", "its bases lead in a circle: two -> five -> two"),
        ("three", "no profile 'qick', did you mean 'quick'?"),
        ("four", "does not fit onto its base"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            profile.load(name)


@pytest.mark.parametrize("name", [name for name in profile.names() if len(profile.chain(name)) > 1])
def test_a_profile_holds_only_what_differs_from_its_base(name: str) -> None:
    """Every value of its file is another than its base's, but for an entry that takes its method's settings."""
    own = {key: value for key, value in params.read(profile.path_of(name)).items() if key != "base"}
    base = profile.flat(profile.values_of(profile.chain(name)[1]))
    repeated = {
        ".".join(key)
        for key, value in profile.flat(own).items()
        if base.get(layers._inherited(key, profile.flat(own)), "none") == value
    }
    assert repeated <= {
        f"search.method.{variant}.method" for variant in own.get("search", {}).get("method", {})
    }


def test_lines_of_profiles_are_short() -> None:
    for name in profile.names():
        for line in [*profile.path_of(name).read_text().splitlines(), *profile.text_of(name).splitlines()]:
            assert len(line) < 120, (name, line)


def test_show_says_where_each_value_comes_from() -> None:
    """Three layers: ablation-beta, study, quick; read back, the lines are the whole profile."""
    lines = profile.shown("ablation-beta").splitlines()
    assert "search.method.cp_nas_child_only.beta_p: 0.0  # ablation-beta" in lines
    assert "search.method.cp_nas_child_only.rounds: 3  # quick" in lines
    assert "search.method.cp_nas_child_only.parent: true  # quick" in lines
    assert "detection.evaluate_every: 0  # study" in lines
    found = {tuple(line.split(": ")[0].split(".")): yaml.safe_load(line.split(": ", 1)[1]) for line in lines}
    assert found == profile.flat(profile.values_of("ablation-beta"))
    assert all(line.endswith("# paper") for line in profile.shown("paper").splitlines())


def test_show_diff_names_what_differs_and_nothing_else() -> None:
    lines = profile.shown("bccd", "photos").splitlines()
    assert "detection.epochs: 10  # bccd; photos has: 9" in lines
    assert not [line for line in lines if line.startswith(("search", "retrain", "compute"))]
    assert profile.shown("quick", "quick") == ""
    assert (
        "# search.method.bnas stands in quick alone" in profile.shown("ablation-beta", "quick").splitlines()
    )


def test_merge_keys_of_yaml_spare_repeating_settings(tmp_path: Path) -> None:
    """A params.yaml of your own may use anchors; DVC's own reader sees the same values."""
    from dvc.utils.serialize import load_yaml

    values = copy.deepcopy(QUICK)
    del values["search"]["method"]
    values["search"]["methods"] = ["cp_nas", "random"]
    values["runs"]["cost"] = ["cp_nas-s0"]
    for task in ("cifar10", "imagenet", "detection", "reid"):
        values["runs"][task]["networks"] = ["cp_nas-s0"]
    entries = "method:\n  cp_nas: &base {beta_p: 1.0, rounds: 1, parent: true, "
    entries += (
        "share_latent_weights: false, partial: 1, tie_weight: 0.0}\n  random: {architectures: 2, epochs: 1}\n"
    )
    entries += "  cp_nas_beta0: {<<: *base, method: cp_nas, beta_p: 0.0}\n"
    text = yaml.safe_dump(values).replace("  methods:\n", textwrap.indent(entries, "  ") + "  methods:\n", 1)
    (tmp_path / "params.yaml").write_text(text)
    search = params.load(tmp_path / "params.yaml").search
    assert search.method["cp_nas_beta0"].settings == search.method["cp_nas"].settings.model_copy(
        update={"beta_p": 0.0}
    )
    assert load_yaml(str(tmp_path / "params.yaml"))["search"]["method"]["cp_nas_beta0"] == {
        "beta_p": 0.0,
        "rounds": 1,
        "parent": True,
        "share_latent_weights": False,
        "partial": 1,
        "tie_weight": 0.0,
        "method": "cp_nas",
    }


def test_folders_are_those_of_the_graph() -> None:
    found = {str(path) for path in params.check(QUICK, "params.yaml").folders()}
    assert {
        "search/cp_nas-s0",
        "networks/cp_nas-s0",
        "networks/bi-real-18",
        "detect/cp_nas-s0-real-s0",
    } <= found


def test_a_params_file_may_have_a_base(tmp_path: Path) -> None:
    """A profile's file copied by hand, or a short one of your own, is completed as a profile is."""
    path = tmp_path / "params.yaml"
    path.write_text(layers.path_of("ci").read_text())
    assert params.load(path) == layers.load("ci")
    path.write_text("{base: ci, profile: mine, compute: {threads: 2}}")
    assert params.load(path) == layers.load("ci").model_copy(
        update={"profile": "mine", "compute": layers.load("ci").compute.model_copy(update={"threads": 2})}
    )
    for text, message in (
        ("{base: [ci]}", "no profile"),
        ("{base: ci, runs: []}", "does not fit onto its base"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            params.load(path)


def test_a_transfer_from_nothing_needs_no_retraining() -> None:
    """With `pretrained: false` a detector's backbone need not be trained first; the graph still wants its stage."""
    values = changed("runs.imagenet.networks", [])
    for task in params.TRANSFER:
        with pytest.raises(InputError, match="which runs.imagenet does not train; train it there, or set"):
            params.check(values, "params.yaml")
        values[task] |= {"pretrained": False, "block": values["retrain"]["imagenet"]["network"]["block"]}
    settings = params.check(values, "params.yaml")
    assert settings.untrained("reid") == settings.keys("reid") != []
    with pytest.raises(InputError, match=r"runs.detection has \S+, which .* python -m pipelines.detect"):
        check.check_graph(settings)
    check.check_graph(params.check(QUICK, "params.yaml"))
    values["reid"]["block"] = None
    with pytest.raises(InputError, match=r"reid.block is null without pretrained weights.* \(cp_nas-s0 has"):
        params.check(values, "params.yaml")
    values["runs"]["reid"]["networks"] = ["resnet-18"]  # a hand-made network has its own
    params.check(values, "params.yaml")
