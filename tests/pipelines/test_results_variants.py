"""Variants of a method in the results: names, comparisons, claims from the ablation profiles, figures of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy import stats

from pipelines import profile
from pipelines.results.claims import NOT_RUN, claim_rows, evaluate, read_claims
from pipelines.results.columns import TABLES
from pipelines.results.comparison import comparison_rows
from pipelines.results.diagnostics import Point, alphas, sweeps, swept
from pipelines.results.records import Library, read_records
from pipelines.results.search_figures import survivors
from pipelines.results.statistics import holm
from pipelines.results.views import views
from search.files import read_json, write_csv, write_json
from tests.pipelines.results_records import rng, write_retrain, write_search, write_variant

ABLATIONS = ("beta", "binary", "curvature", "distance", "tangent")
RULES, CLAIMS = read_claims()


def cp_nas(**changes: Any) -> dict[str, Any]:
    """Recorded settings of a search with CP-NAS; a key of the space changes the space."""
    space = {"cells": 3, "binary": True, "edges": "top2"}
    own = {"beta_p": 1.0, "rounds": 2, "parent": True}
    return {
        "space": {key: changes.get(key, value) for key, value in space.items()},
        "method": {"cp_nas": {key: changes.get(key, value) for key, value in own.items()}},
    }


def library(root: Path) -> Library:
    """The records below ``root``."""
    return Library(tuple(read_records(root)))


def campaign(name: str, root: Path, seeds: int = 3) -> None:
    """Synthetic runs of every variant of a profile, with its settings."""
    search = profile.load(name).search
    for variant in search.methods:
        entry = search.method[variant]
        params = {
            "space": search.space_of(variant).model_dump(),
            "method": {entry.method: entry.settings.model_dump()},
        }
        for seed in search.seeds[:seeds]:
            accuracy = 0.5 + float(rng(variant, seed).normal(0, 0.01))
            write_variant(root / name, variant, entry.method, seed, params, accuracy, 60.0 + seed)
            path = root / name / f"search/{variant}-s{seed}/provenance.json"
            write_json(path, read_json(path) | {"wall_seconds": 70.0, "cpu_seconds": 60.0 + seed})


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The study and the ablations that a claim needs."""
    root = tmp_path_factory.mktemp("records")
    for name in ("study", *(f"ablation-{name}" for name in ABLATIONS)):
        campaign(name, root)
    return library(root)


def test_a_variant_is_called_by_what_it_changes(tmp_path: Path) -> None:
    """Against the base form in the same campaign; without one there, by its own name."""
    write_variant(tmp_path / "one", "cp_nas", "cp_nas", 0, cp_nas(), 0.5)
    write_variant(tmp_path / "one", "cp_nas_beta0", "cp_nas", 0, cp_nas(beta_p=0.0, parent=False), 0.5)
    write_variant(tmp_path / "one", "cp_nas_real", "cp_nas", 0, cp_nas(binary=False, edges="all"), 0.5)
    write_variant(tmp_path / "two", "cp_nas_beta0", "cp_nas", 0, cp_nas(beta_p=0.0), 0.5)
    write_search(tmp_path / "three", "cp_nas", 0)  # a record from before there were variants
    labels = {(record.campaign, record.family): record.label for record in library(tmp_path).runs}
    assert labels == {
        ("one", "cp_nas"): "CP-NAS",
        ("one", "cp_nas_beta0"): "CP-NAS, Child only, parent off",
        ("one", "cp_nas_real"): "CP-NAS, searched real-valued, edges all",
        ("two", "cp_nas_beta0"): "CP-NAS, cp_nas_beta0",
        ("three", "cp_nas"): "CP-NAS",
    }


def test_every_claim_of_two_arms_can_come_from_a_profile(studied: Library) -> None:
    """The study and the ablations give each such claim as many pairs as there are seeds, all else being the same."""
    rows = claim_rows(evaluate(studied, RULES, CLAIMS))
    paired = {claim.id for claim in CLAIMS if all(test.first for test in claim.comparisons)}
    assert {row["claim"] for row in rows if row["outcome"] == NOT_RUN} == {
        "transfer-detection",
        "transfer-reid",
    }
    assert {row["n"] for row in rows if row["claim"] in paired} == {3}
    (beta,) = [row for row in rows if row["comparison"] == "beta_P 2 minus beta_P 0"]
    assert beta["campaign"] == "ablation-beta" and beta["methods"] == "CP-NAS, beta_p 2; CP-NAS, Child only"
    (binary,) = [row for row in rows if row["claim"] == "search-in-one-bit"]
    assert binary["methods"] == "PC-DARTS; PC-DARTS, searched real-valued"
    decoupled = [row for row in rows if row["claim"] == "decoupled-helps"]
    assert len(decoupled) == 2  # with the exact product and with GGN, never across


def test_an_arm_without_condition_is_the_base_form(studied: Library) -> None:
    """CP-NAS over random search uses no variant, though several campaigns have both."""
    rows = claim_rows(evaluate(studied, RULES, CLAIMS))
    (row,) = [row for row in rows if row["claim"] == "cp-nas-over-random"]
    accuracies = {
        (record.variant, record.search_seed): record.metrics["accuracy"]
        for record in studied.of("retrain")
        if record.campaign == "study"
    }
    differences = [accuracies["cp_nas", seed] - accuracies["random", seed] for seed in range(3)]
    assert row["effect"] == pytest.approx(sum(differences) / 3, abs=1e-5)


def test_search_times_are_compared_on_one_device_only(tmp_path: Path) -> None:
    """Exact on one machine, GGN on another: no ratio."""
    campaign("ablation-curvature", tmp_path)
    for path in (tmp_path / "ablation-curvature/search").glob("dcp_nas_exact*/provenance.json"):
        write_json(path, {**read_json(path), "gpu": "Synthetic GPU"})
    found = library(tmp_path)
    rows = claim_rows(evaluate(found, RULES, CLAIMS))
    times = [row for row in rows if row["comparison"] == "search time of exact over GGN"]
    assert {row["outcome"] for row in times} == {NOT_RUN}
    assert all(
        row["n"] == 3 for row in rows if row["comparison"] == "accuracy of GGN minus exact" and row["n"]
    )


def test_comparison_is_paired_and_corrected(studied: Library) -> None:
    """Mean, deviation, difference and p of the study, recomputed by hand; the reference has no difference."""
    rows = {row["variant"]: row for row in comparison_rows(studied, RULES) if row["campaign"] == ("study",)}
    values = {name: row["values"] for name, row in rows.items()}
    others = [name for name in rows if name != "random"]
    tests = [stats.ttest_rel(values[name], values["random"]).pvalue for name in sorted(others)]
    for name, p in zip(sorted(others), holm(tests), strict=True):
        row = rows[name]
        assert (row["against"], row["pairs"], row["searches"]) == ("Random search", 3, 3)
        assert row["difference"] == pytest.approx(row["accuracy"] - rows["random"]["accuracy"], abs=2e-3)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert row["p_holm"] == pytest.approx(p, rel=0.05)
    assert rows["random"]["against"] is None and rows["random"]["difference"] is None
    assert set(rows) == set(profile.load("study").search.methods)


def test_variants_are_compared_with_their_base_form(studied: Library, tmp_path: Path) -> None:
    """In an ablation the reference is the base form; training seeds are averaged first; a stand-in stays apart."""
    rows = [row for row in comparison_rows(studied, RULES) if row["campaign"] == ("ablation-binary",)]
    assert {row["variant"]: row["against"] for row in rows} == {
        "cp_nas": None,
        "cp_nas_real": "CP-NAS",
        "pc_darts": None,
        "pc_darts_real": "PC-DARTS",
    }
    for seed in range(2):
        for training in range(2):
            write_retrain(tmp_path / "x", "random", seed, "1bit", "imagenet", training)
            write_retrain(tmp_path / "x", "cp_nas", seed, "1bit", "imagenet", training)
    (first, _) = comparison_rows(library(tmp_path), RULES)
    assert (first["searches"], first["runs"], first["pairs"], first["p"]) == (2, 4, 2, None)
    assert first["accuracy"] is None and first["stand_in_difference"] > 3
    assert (first["data_kind"], first["other_accuracy"]) == ("stand-in", None)


def test_a_comparison_on_other_data_has_columns_of_its_own(tmp_path: Path) -> None:
    """Neither those of the papers' data nor a stand-in's; the rows still fall by accuracy."""
    for method in ("random", "cp_nas"):
        for seed in range(2):
            write_retrain(tmp_path / "x", method, seed, "1bit", "cifar10")
    for path in (tmp_path / "x").rglob("run.json"):
        run = read_json(path)
        write_json(path, run | {"dataset": run["dataset"] | {"name": "pets"}})
    rows = comparison_rows(library(tmp_path), RULES)
    assert [(row["variant"], row["data_kind"]) for row in rows] == [("cp_nas", "other"), ("random", "other")]
    assert rows[0]["other_difference"] > 3 and rows[0]["other_accuracy_std"] is not None
    assert rows[0]["accuracy"] is None and rows[0]["stand_in_accuracy"] is None
    (view,) = views(next(spec for spec in TABLES if spec.name == "comparison"), rows)
    assert view.title == "pets · campaign x · other data" and not view.comparable


def point(key: str, value: Any, other: Any = 1, edges: str = "top2") -> Point:
    return Point({f"method.cp_nas.{key}": value, "space.train_images": other, "space.edges": edges}, [0.5])


def test_swept_settings_are_one_or_two_numbers() -> None:
    assert swept([point("beta_p", value) for value in (0.0, 1.0, 2.0)]) == ["method.cp_nas.beta_p"]
    assert swept([point("rounds", value, 8 // value) for value in (1, 2, 4)]) == [
        "method.cp_nas.rounds",
        "space.train_images",
    ]
    assert swept([point("beta_p", value) for value in (0.0, 1.0)]) == []
    assert swept([point("beta_p", 1.0), point("beta_p", 2.0), point("beta_p", 1.0, edges="all")]) == []
    assert swept([point("parent", value) for value in (True, False, True)]) == []


def text_of(path: Path) -> str:
    return " ".join(element.text or "" for element in ElementTree.parse(path).getroot().iter())


def test_figures_of_sweeps(tmp_path: Path) -> None:
    """A line over beta_P; a line for each mu over lambda, on a logarithmic axis; one line where T decides the data."""
    for name in ("ablation-beta", "ablation-grid", "ablation-rounds", "ablation-distance"):
        campaign(name, tmp_path / "records", seeds=3 if name == "ablation-beta" else 1)
    pictures = {
        picture.campaign: picture for picture in sweeps(library(tmp_path / "records"), RULES, tmp_path)
    }
    assert sorted(pictures) == ["ablation-beta", "ablation-grid", "ablation-rounds"]
    assert pictures["ablation-beta"].title == "CP-NAS: 1-bit accuracy over beta_p (ablation-beta)"
    grid = text_of(tmp_path / f"{pictures['ablation-grid'].name}.svg")
    assert (
        all(f"reconstruction_weight {mu}" in grid for mu in ("0.01", "0.1", "1")) and "tangent_weight" in grid
    )
    assert "train_images" not in text_of(tmp_path / f"{pictures['ablation-rounds'].name}.svg")


def test_figure_of_tangents_comes_from_the_history_alone(tmp_path: Path) -> None:
    """Both phases, every panel that has numbers, no panel that has none."""
    rows = [
        {
            "step": step,
            "round": step // 2,
            "phase": ("parent", "child")[step % 2],
            "accuracy_parent": 0.3 if step % 2 == 0 else None,
            "accuracy_child": 0.2 if step % 2 else None,
            "entropy": 2.0 - 0.1 * step,
            "distance": 0.5 if step % 2 else None,
            "tangent_cosine": -0.2 if step % 2 else None,
            "psi_mean": None,
            "psi_max": None,
            "reconstruction": 3.0 if step % 2 else None,
        }
        for step in range(6)
    ]
    for seed in range(2):
        params = {"space": {"binary": True}, "method": {"dcp_nas": {"decoupled": False}}}
        write_variant(tmp_path / "records/x", "dcp_nas", "dcp_nas", seed, params, 0.5)
        write_csv(tmp_path / f"records/x/search/dcp_nas-s{seed}/history.csv", rows)
    found = library(tmp_path / "records")
    (picture,) = alphas(found.of("search"), tmp_path)
    text = text_of(tmp_path / f"{picture.name}.svg")
    for title in (
        "validation accuracy %",
        "entropy of alpha",
        "cosine of the tangents",
        "reconstruction error",
    ):
        assert title in text
    assert "Child" in text and "Parent" in text and "psi" not in text
    assert alphas(found.of("retrain"), tmp_path) == []


def test_figure_of_the_elimination_shows_every_diagnosis(tmp_path: Path) -> None:
    """Survivors, margins, tau, parameter-free share and collapse of rounds.csv in one figure."""
    write_search(tmp_path / "records/x", "cp_nas", 0)
    (picture,) = survivors(library(tmp_path / "records").of("search"), tmp_path)
    text = text_of(tmp_path / f"{picture.name}.svg")
    for words in ("normal cell", "reduction cell", "margin", "tau", "parameter-free share", "collapsed"):
        assert words in text
