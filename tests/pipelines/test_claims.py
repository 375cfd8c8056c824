"""Claims: each can be decided by the profile it names, compares like with like, and says what it rests on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from pipelines import profile
from pipelines.results.claims import (
    ELSEWHERE,
    NOT_RUN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    claim_rows,
    evaluate,
    read_claims,
)
from pipelines.results.level import REDUCED
from pipelines.results.pairing import Arm, setting
from pipelines.results.records import Library, read_records
from pipelines.results.run import Run
from search.files import read_json, write_json
from tests.pipelines.results_records import CIFAR, DATASETS, genotype, in_memory, sha, write_run

RULES, CLAIMS = read_claims()
PAPERS = {
    "cifar10": CIFAR,
    "imagenet": {"name": "imagenet", "stand_in": False, "sha256": "11" * 32},
    "detection": {"name": "voc-0712", "stand_in": False, "sha256": "22" * 32},
    "reid": {"name": "market1501", "stand_in": False, "sha256": "33" * 32},
}


def side(arm: Arm | None, method: str, params: dict[str, Any], base: bool) -> bool:
    """Whether a search belongs to an arm of a claim, restated from the words in claims.yaml."""
    if arm is None or arm.method != method:
        return False
    binary = params["space"]["binary"]
    if arm.searched is not None and (arm.searched == "1bit") != binary:
        return False
    return all(setting(params, key) == value for key, value in arm.where.items()) and (
        bool(arm.where) or base or arm.searched is not None
    )


def score(claim: Claim, stage: str, method: str, params: dict[str, Any], base: bool) -> int:
    """How often a search is on the side that the claim calls larger, less how often on the other one."""
    tests = [test for test in claim.comparisons if test.measure.stage == stage]
    return sum(
        side(test.first, method, params, base) - side(test.second, method, params, base) for test in tests
    )


def best_case(claim: Claim, sign: int = 1) -> Library:
    """Runs of the claim's profile, all of them, with the values that the claim would like most (or least)."""
    settings = profile.load(claim.profile)
    found: dict[str, tuple[str | None, float]] = {}
    records = []
    for place, (variant, seed) in enumerate(
        itertools.product(settings.search.methods, settings.search.seeds)
    ):
        entry, name = settings.search.method[variant], f"{variant}-s{seed}"
        params = {
            "space": settings.search.space_of(variant).model_dump(),
            "method": {entry.method: entry.settings.model_dump()},
        }
        base = variant == entry.method
        better = sign * score(claim, "retrain", entry.method, params, base)
        accuracy = 0.5 + 0.1 * better + 1e-5 * place**2
        seconds = 3600 * 100.0 ** score(claim, "search", entry.method, params, base) + place
        found[name] = (entry.method, accuracy)
        records.append(
            memory(
                claim.profile,
                {"stage": "search", "network": name, "method": entry.method, "seed": seed, "task": "search"}
                | {"variant": variant, "precision": "1bit" if params["space"]["binary"] else "real"},
                {"val_accuracy": sign * accuracy / 2 % 1, "seconds": 1.0},
                params,
                {"cpu_seconds": seconds, "wall_seconds": 2.0},
            )
        )
    found |= {name: (None, 0.3 + 0.01 * place) for place, name in enumerate(settings.runs.adopted)}
    for task in PAPERS:
        for name in getattr(settings.runs, task).networks:
            records.append(measured(claim.profile, task, name, *found[name], sign))
    return Library(tuple(records))


def memory(campaign: str, run: dict[str, Any], *parts: Any) -> Run:
    """A run that was never written: files of some hundred runs would take this test a minute."""
    return in_memory(campaign, {"genotype_hash": sha(run["network"])} | run, *parts)


def measured(campaign: str, task: str, name: str, method: str | None, value: float, sign: int) -> Run:
    """The 1-bit run of a network in a task; transfer turns the order round where ``sign`` is negative."""
    stage = {"detection": "detect", "reid": "reid"}.get(task, "retrain")
    moved = value if stage == "retrain" or sign > 0 else 1 - value
    run = {"stage": stage, "network": name, "method": method, "seed": 0, "task": task, "precision": "1bit"}
    metrics = dict.fromkeys(("accuracy", "voc_map50", "map"), moved)
    return memory(campaign, run | {"dataset": PAPERS[task]}, metrics, {stage: {"epochs": 1}}, {})


def rows_of(library: Library, claim: str | None = None) -> list[dict[str, Any]]:
    """Rows of claims.csv, those of one claim or all."""
    rows = claim_rows(evaluate(library, RULES, CLAIMS))
    return [row for row in rows if claim in (None, row["claim"])]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_profile_a_claim_names_can_decide_it(claim: Claim) -> None:
    """With the values that the claim would like most, runs of its profile support it; turned round they refute it."""
    verdicts = {}
    for sign in (1, -1):
        rows = rows_of(best_case(claim, sign), claim.id)
        verdicts[sign] = {row["verdict"] for row in rows}
        assert f"(profile {claim.profile})" in rows[0]["needs"]
    assert verdicts == {1: {SUPPORTED}, -1: {NOT_SUPPORTED}}


def test_a_rank_correlation_needs_more_networks_than_a_difference() -> None:
    """Kendall's smallest exact p for min_networks stands a correction over as many tests as there are methods."""

    def smallest(n: int) -> float:
        return float(stats.kendalltau(range(n), range(n), method="exact").pvalue)

    assert [round(smallest(n), 4) for n in (3, 4, 5, 6)] == [0.3333, 0.0833, 0.0167, 0.0028]
    assert 6 * smallest(RULES.min_networks) < RULES.alpha < 6 * smallest(RULES.min_networks - 1)
    assert 20 / (RULES.permutations + 1) < RULES.alpha
    for claim in CLAIMS:
        ranked = any(test.against for test in claim.comparisons)
        assert f"at least {RULES.min_networks if ranked else RULES.min_n} " in claim.needs


def transfer(root: Path, name: str, value: float, **changes: Any) -> None:
    """A hand-made network, retrained and trained on detection."""
    for place, metric in (("retrain/imagenet", "accuracy"), ("detect", "voc_map50")):
        task = "imagenet" if metric == "accuracy" else "detection"
        of_stage = changes.get(task, {})
        metrics = {metric: value, "coco_map": 0, "coco_map50": 0, "untrained_coco_map50": 0, "seconds": 1}
        write_run(
            root,
            f"{place}/{name}-1bit-s0",
            network=name,
            method=None,
            task=task,
            metrics=metrics | {"epochs": 1, "images_seen": 1},
            **of_stage,
        )


@pytest.mark.parametrize("task", ["imagenet", "detection"])
@pytest.mark.parametrize(
    "change",
    [{"params": {"retrain": {"epochs": 9}}}, {"dataset": {**DATASETS["imagenet"], "sha256": "99" * 32}}],
)
def test_networks_of_another_recipe_or_data_are_not_ranked_together(
    task: str, change: dict[str, Any], tmp_path: Path
) -> None:
    """Six networks, three of them with another recipe or other images: two cases of three, none of six."""
    for place in range(6):
        changes = {task: change} if place >= 3 else {}
        transfer(tmp_path / "one", f"net-{place}", 0.3 + 0.01 * place, **changes)
    rows = rows_of(Library(tuple(read_records(tmp_path))), "transfer-detection")
    assert [(row["n"], row["verdict"]) for row in rows] == [(3, UNDECIDED)] * 2


def searched(root: Path, method: str, seeds: int, offset: float, space: int = 3) -> None:
    """Searches of one method whose own accuracy, ``offset`` apart, ranks the networks as retraining does."""
    for seed in range(seeds):
        name = f"{method}-s{seed}"
        common: dict[str, Any] = {
            "network": name,
            "method": method,
            "task": "cifar10",
            "found": genotype(method, seed),
        }
        metrics = {"epochs": 1, "images_seen": 1, "seconds": 1.0}
        params = {"space": {"cells": space}, "method": {method: {}}}
        indicator = {"val_accuracy": offset + 0.01 * seed}
        write_run(root, f"search/{name}", seed=seed, params=params, metrics=metrics | indicator, **common)
        write_run(
            root,
            f"retrain/cifar10/{name}-1bit-s0",
            metrics=metrics | {"accuracy": 0.6 - offset + 0.01 * seed},
            **common,
        )


def test_search_indicators_are_compared_within_a_method_and_counted_together(tmp_path: Path) -> None:
    """Between the two methods the order is turned round; within each it is the same: tau is 1, from 2 x 3 networks."""
    searched(tmp_path / "one", "cp_nas", 3, 0.1)
    searched(tmp_path / "one", "random", 3, 0.4)
    (row,) = rows_of(Library(tuple(read_records(tmp_path))), "indicator-ranks")
    assert (row["n"], row["effect"], row["verdict"]) == (6, 1.0, UNDECIDED)
    assert row["p"] == pytest.approx(2 / 36, abs=0.005)  # two of the 3! * 3! orders are as extreme
    searched(tmp_path / "one", "cp_nas", 5, 0.1)
    searched(tmp_path / "one", "random", 5, 0.4)
    (row,) = rows_of(Library(tuple(read_records(tmp_path))), "indicator-ranks")
    assert (row["n"], row["verdict"]) == (10, SUPPORTED)


def timed(root: Path, curvature: str, **provenance: Any) -> None:
    """Three searches with the exact curvature or GGN, each retrained; wall times say nothing."""
    variant = "dcp_nas" if curvature == "ggn" else f"dcp_nas_{curvature}"
    for seed in range(3):
        name = f"{variant}-s{seed}"
        found = genotype("dcp_nas", seed)
        common: dict[str, Any] = {"network": name, "method": "dcp_nas", "task": "cifar10", "found": found}
        wall = {"epochs": 1, "images_seen": 1, "seconds": 40.0 * 100 ** (curvature == "ggn") + seed}
        params = {"space": {"cells": 3}, "method": {"dcp_nas": {"curvature": curvature}}}
        folder = write_run(
            root,
            f"search/{name}",
            seed=seed,
            variant=variant,
            params=params,
            metrics=wall | {"val_accuracy": 0.3},
            **common,
        )
        path = folder / "provenance.json"
        write_json(path, read_json(path) | {"wall_seconds": wall["seconds"] + 1} | provenance)
        accuracy = 0.5 + 0.001 * seed + 0.0001 * (seed * (curvature == "ggn"))
        write_run(root, f"retrain/cifar10/{name}-1bit-s0", metrics=wall | {"accuracy": accuracy}, **common)


def test_search_costs_are_processor_times_or_a_gpus_wall_times(tmp_path: Path) -> None:
    """On a processor its seconds count and wall time never does; on a GPU wall time; an interrupted run has none."""

    def time_row(name: str, exact: dict[str, Any], ggn: dict[str, Any]) -> dict[str, Any]:
        timed(tmp_path / name / "x", "exact", **exact)
        timed(tmp_path / name / "x", "ggn", **ggn)
        rows = rows_of(Library(tuple(read_records(tmp_path / name))), "ggn-keeps-accuracy")
        return next(row for row in rows if row["comparison"].startswith("search time"))

    both = time_row("processor", {"cpu_seconds": 2000.0}, {"cpu_seconds": 100.0})
    assert (both["n"], both["effect"]) == (3, 20.0)
    one = time_row("one", {"cpu_seconds": 2000.0}, {})
    assert (one["outcome"], one["verdict"], one["n"]) == (UNDECIDED, UNDECIDED, 0)
    assert "only processor time counts" in one["comparison"] and one["effect"] is None
    broken = time_row("interrupted", {"cpu_seconds": 2000.0, "wall_seconds": 5.0}, {"cpu_seconds": 100.0})
    assert (broken["outcome"], broken["n"]) == (UNDECIDED, 0)
    gpu = time_row("gpu", {"gpu": "Synthetic GPU"}, {"gpu": "Synthetic GPU"})
    assert gpu["n"] == 3 and gpu["effect"] == pytest.approx(0.01, rel=0.05)


def test_other_data_are_marked_and_reproduce_nothing(tmp_path: Path) -> None:
    """Photographs of no paper and a stand-in are named as such; the level is not that of a reproduction."""
    photos = {"name": "caltech101-s80", "stand_in": False, "sha256": "44" * 32}
    for place in range(2):
        value = 0.3 + 0.01 * place
        transfer(tmp_path / "one", f"net-{place}", value, imagenet={"dataset": photos})
        transfer(
            tmp_path / "two",
            f"net-{place}",
            value,
            imagenet={"dataset": PAPERS["imagenet"]},
            detection={"dataset": PAPERS["detection"]},
        )
    other, paper = rows_of(Library(tuple(read_records(tmp_path))), "transfer-detection")
    assert other["dataset"] == "caltech101-s80 (other data); cifar10-scenes (stand-in)"
    assert other["level"] == ELSEWHERE and "reproduced" not in other["level"]
    assert (paper["dataset"], paper["level"]) == ("imagenet; voc-0712", REDUCED)
    assert rows_of(Library(tuple(read_records(tmp_path))), "tangent-helps")[0]["verdict"] == NOT_RUN
