"""A profile with a variant, whole: search, derivation, retraining, collecting and tables, at the smallest size."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines import collect, derive, params, profile, retrain, search, tables
from search.errors import InputError
from search.files import read_csv, read_json, write_json
from search.genotype import Genotype

CI = profile.values_of("ci")
VARIANTS = ("pc_darts", "pc_darts_real")


def settings() -> dict[str, Any]:
    """PC-DARTS on 1-bit and on real-valued operations, retrained on 20 images; no other task."""
    values = copy.deepcopy(CI)
    own = values["search"]["method"]["pc_darts"] | {"epochs": 1, "warm_up": 0}
    values["search"]["space"] |= {"train_images": 10, "validation_images": 10, "batch_size": 10}
    values["search"] |= {
        "methods": list(VARIANTS),
        "seeds": [0],
        "method": {
            "pc_darts": own,
            "pc_darts_real": own | {"method": "pc_darts", "space": own["space"] | {"binary": False}},
        },
    }
    networks = [f"{variant}-s0" for variant in VARIANTS]
    none = {"networks": [], "precisions": ["1bit"], "seeds": [0]}
    values["runs"] = {"adopted": [], "cost": [], "cifar10": none | {"networks": networks}}
    values["runs"] |= dict.fromkeys(("imagenet", "detection", "reid"), none)
    values["runs"]["reid_zoo"] = {"networks": [], "seeds": [0]}
    values["retrain"]["cifar10"] |= {"train_images": 20, "test_images": 20, "batch_size": 10}
    return values


def prepare(folder: Path) -> None:
    """A CIFAR-10 of 40 + 20 images in the layout of `pipelines.prepare`."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("test", 20)):
        np.save(folder / f"{part}_images.npy", draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        np.save(folder / f"{part}_labels.npy", (np.arange(count) % 10).astype(np.uint8))
    write_json(
        folder / "manifest.json",
        {"schema": 1, "name": "cifar10", "stand_in": False, "note": "random pixels", "sha256": "00" * 32},
    )


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the suite after all stages."""
    root = tmp_path_factory.mktemp("suite")
    prepare(root / "data/cifar10")
    (root / "params.yaml").write_text(yaml.safe_dump(settings()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for variant in VARIANTS:
            call(patch, search.main, "--method", variant, "--seed", "0")
            call(patch, derive.main, "--method", variant, "--seed", "0")
            run = ("--network", f"{variant}-s0", "--precision", "1bit", "--seed", "0")
            call(patch, retrain.main, "--task", "cifar10", *run)
        call(patch, collect.main)
        call(patch, tables.main)
    return root


def call(patch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: str) -> None:
    patch.setattr(sys, "argv", ["program", *arguments])
    main()


def test_a_search_records_its_variant_and_its_own_space(suite: Path) -> None:
    """Method and variant apart, the precision and the space that were searched, a genotype of the variant's name."""
    base, real = (suite / f"results/records/ci/search/{variant}-s0" for variant in VARIANTS)
    assert (read_json(base / "run.json")["variant"], read_json(base / "run.json")["precision"]) == (
        "pc_darts",
        "1bit",
    )
    run, own = read_json(real / "run.json"), read_json(real / "params.json")
    assert (run["method"], run["variant"], run["network"]) == (
        "pc_darts",
        "pc_darts_real",
        "pc_darts_real-s0",
    )
    assert run["precision"] == "real" and own["space"]["binary"] is False
    assert list(own["method"]) == ["pc_darts"] and "space" not in own["method"]["pc_darts"]
    assert Genotype.load(real / "genotype.json").name == "pc_darts_real-s0"
    assert (base / "history.csv").read_bytes() != (real / "history.csv").read_bytes()
    entry = read_json(suite / "runs/networks/pc_darts_real-s0/network.json")
    assert (entry["method"], entry["name"]) == ("pc_darts", "pc_darts_real-s0")


def test_tables_keep_variants_apart_and_compare_them(suite: Path) -> None:
    """A row each, named by what differs; the variant against its base form; one pair for the claim."""
    rows = {row["variant"]: row for row in read_csv(suite / "results/classification.csv") if row["n"]}
    assert {name: row["name"] for name, row in rows.items()} == {
        "pc_darts": "PC-DARTS",
        "pc_darts_real": "PC-DARTS, searched real-valued",
    }
    assert all(row["n"] == "1" for row in rows.values())
    assert rows["pc_darts"]["paper_accuracy"] == rows["pc_darts_real"]["paper_accuracy"] == ""
    compared = {row["variant"]: row for row in read_csv(suite / "results/comparison.csv")}
    real = compared["pc_darts_real"]
    assert (real["against"], real["pairs"], compared["pc_darts"]["against"]) == ("PC-DARTS", "1", "")
    difference = float(real["accuracy"]) - float(compared["pc_darts"]["accuracy"])
    assert float(real["difference"]) == pytest.approx(difference)
    claims = {row["claim"]: row for row in read_csv(suite / "results/claims.csv")}
    assert (claims["search-in-one-bit"]["n"], claims["search-in-one-bit"]["verdict"]) == ("1", "undecided")
    assert "searched real-valued" in (suite / "results/comparison.md").read_text()


def test_a_stage_without_networks_leaves_nothing_behind(suite: Path) -> None:
    """No folder of transfer tasks, and the settings say so."""
    assert sorted(path.name for path in (suite / "results/records/ci").iterdir()) == [
        "networks",
        "retrain",
        "search",
    ]
    found = params.load(suite / "params.yaml")
    assert found.keys("imagenet") == found.keys("detection") == []
    assert not {"cost", "detect", "reid"} & {path.parts[0] for path in found.folders()}


def test_an_unknown_variant_is_one_line(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program names the nearest entry of search.method."""
    monkeypatch.chdir(suite)
    with pytest.raises(InputError, match="no search method 'pc_darts_rel', did you mean 'pc_darts_real'?"):
        call(monkeypatch, search.main, "--method", "pc_darts_rel", "--seed", "0")
