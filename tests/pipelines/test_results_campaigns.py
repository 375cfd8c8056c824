"""Campaigns that share runs: their order, each search once, and checklist answers that no copy can change; the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect import collect
from pipelines.results.campaigns import campaign_order, in_order, searches_once, searching_campaigns
from pipelines.results.checklist import COMPUTED
from pipelines.results.records import Library
from pipelines.results.run import Run
from pipelines.tables import build
from search.files import read_csv
from tests.pipelines.results_records import CIFAR, in_memory, sha, write_retrain, write_run, write_search


def record(campaign: str, stage: str, network: str, seed: int = 0, **changes: Any) -> Run:
    """A run of a found network; equal arguments but for the campaign give a copy of it."""
    variant, _, search_seed = network.rpartition("-s")
    run = {
        "stage": stage,
        "key": f"{network}-{seed}",
        "network": network,
        "method": changes.pop("method", variant),
        "precision": "1bit",
        "form": "paper",
        "seed": int(search_seed) if stage == "search" else seed,
        "task": "search" if stage == "search" else "cifar10",
        "dataset": CIFAR,
    }
    metrics = {"accuracy": 0.5, "top5": 0.9, "loss": 1.2} | changes.pop("metrics", {})
    return in_memory(campaign, run | changes, metrics, changes.pop("params", {}))


def library(*groups: Iterable[Run]) -> Library:
    """All records by campaign and stage, as they are read."""
    records = [one for group in groups for one in group]
    return Library(tuple(sorted(records, key=lambda one: (one.campaign, one.stage, one.key))))


def searches(campaign: str, *networks: str, **changes: Any) -> list[Run]:
    """The searches of some networks."""
    return [record(campaign, "search", network, **dict(changes)) for network in networks]


SHARED = library(
    searches("aa", "cp_nas-s7"),
    searches("bb", "cp_nas-s7"),
    searches("photos", "cp_nas-s7"),
    [record("photos", "retrain", "cp_nas-s7")],
    searches("quick", "cp_nas-s0", "cp_nas-s1", "random-s0"),
    [record("quick", "retrain", "cp_nas-s0")],
)


def test_order_of_campaigns_is_a_rule() -> None:
    """Those that retrained before the others, those with more searches of their own before fewer, then by name."""
    assert campaign_order(SHARED) == ["quick", "photos", "aa", "bb"]
    assert list(dict.fromkeys(one.campaign for one in in_order(SHARED).runs)) == campaign_order(SHARED)
    more = library(SHARED.runs, searches("bb", "random-s8"), searches("zz", "random-s9", "random-s10"))
    assert campaign_order(more) == ["quick", "photos", "zz", "bb", "aa"]


def test_a_shared_search_is_one_with_all_its_campaigns() -> None:
    """A campaign that holds copies only is named beside the campaign that is shown first; one seed more is its own."""
    found = {
        (group.records[0].family, len(group.records)): group.campaigns for group in searches_once(SHARED)
    }
    assert found == {("cp_nas", 2): "quick", ("random", 1): "quick", ("cp_nas", 1): "photos, aa, bb"}
    more = library(SHARED.runs, searches("bb", "cp_nas-s8"))
    groups = {
        group.campaigns: len(group.records)
        for group in searches_once(more)
        if group.records[0].family == "cp_nas"
    }
    assert groups == {"quick": 2, "photos, aa": 1, "bb": 2}
    assert searching_campaigns(SHARED) == ["quick", "photos"]


def test_random_search_is_not_missed_where_there_are_copies_only() -> None:
    answer, words = COMPUTED["random"](SHARED)
    assert (answer, words) == ("partly", "recorded in 1 of 2 campaigns with searches of their own")
    copies = library(SHARED.runs, searches("aa", "random-s0"))
    assert COMPUTED["random"](copies) == (answer, words)
    assert COMPUTED["random"](library(searches("one", "cp_nas-s0")))[0] == "no"
    assert COMPUTED["random"](library(searches("one", "cp_nas-s0", "random-s0")))[0] == "yes"


def test_two_campaigns_of_different_sizes_are_no_ablation() -> None:
    """Only two variants of a method inside one campaign are; both of the papers' methods make it whole."""
    sizes = [
        one.model_copy(update={"params": {"space": {"cells": cells}}})
        for cells, campaign in ((3, "one"), (5, "two"))
        for one in searches(campaign, "cp_nas-s0")
    ]
    assert COMPUTED["ablations"](library(sizes))[0] == "no"
    ablated = searches("one", "cp_nas-s0") + searches("one", "cp_nas_beta0-s0", method="cp_nas")
    answer, words = COMPUTED["ablations"](library(ablated))
    assert (answer, words) == ("partly", "2 variants of cp_nas in one")
    both = ablated + searches("two", "dcp_nas-s0") + searches("two", "dcp_nas_l1-s0", method="dcp_nas")
    assert COMPUTED["ablations"](library(both))[0] == "yes"


@pytest.mark.parametrize(
    ("read", "accuracy", "answer", "words"),
    [
        (0, 0.5, "no", "of 2 retrainings none was read back"),
        (1, 0.5, "partly", "1 of 2 exact"),
        (2, 0.5, "yes", "2 of 2 exact"),
        (2, 0.4, "partly", "2 of 2, largest difference: accuracy 10.00 points"),
    ],
)
def test_reading_back_is_answered_by_the_evaluations(
    read: int, accuracy: float, answer: str, words: str
) -> None:
    """None, some, all, all but not exactly; a copy of a retraining in another campaign is no second one."""
    names = ("cp_nas-s0", "cp_nas-s1")
    trained = [record("one", "retrain", name, weights_hash=sha(name)) for name in names]
    copies = [record("two", "retrain", names[0], weights_hash=sha(names[0]))]
    evaluated = [
        record(
            "one", "evaluate", name, weights_hash=sha(name), same_machine=True, metrics={"accuracy": accuracy}
        )
        for name in names[:read]
    ]
    found = COMPUTED["read_back"](library(trained, copies, evaluated))
    assert found[0] == answer and words in found[1]


def test_copies_are_no_further_seeds() -> None:
    """Three retrainings of a network count as three in their campaign; a copy elsewhere is no row of one run."""
    trained = [record("one", "retrain", "cp_nas-s0", seed=seed) for seed in range(3)]
    copies = [record("two", "retrain", "cp_nas-s0", seed=0)]
    answer, words = COMPUTED["seeds"](library(trained, copies))
    assert (answer, words.partition(" rows")[0]) == ("yes", "1 of 1")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ of four campaigns: aa and bb hold copies of a search of main's, quick has searches of its own, and seven
    networks whose order transfer keeps."""
    top = tmp_path_factory.mktemp("shared")
    write_search(top / "one", "cp_nas", 5)
    for campaign in ("aa", "bb", "main"):
        collect(top / "one", top / "results/records", campaign)
    write_retrain(top / "two", "cp_nas", 5, "1bit", "cifar10")
    collect(top / "two", top / "two-records", "main")
    shutil.copytree(top / "two-records/main", top / "results/records/main", dirs_exist_ok=True)
    for seed in range(2):
        write_search(top / "three", "random", seed)
        write_retrain(top / "three", "random", seed, "1bit", "cifar10")
    for place in range(7):
        _transferred(top / "three", f"net-{place}", 0.3 + 0.01 * place)
    collect(top / "three", top / "results/records", "quick")
    build(top / "results")
    return top / "results"


def _transferred(runs: Path, name: str, value: float) -> None:
    for task, metric in (("imagenet", "accuracy"), ("detection", "voc_map50")):
        stage = "detect" if task == "detection" else f"retrain/{task}"
        others = dict.fromkeys(("coco_map", "coco_map50", "untrained_coco_map50"), 0.0)
        numbers = others | {metric: value, "epochs": 1, "images_seen": 1, "seconds": 1.0}
        write_run(runs, f"{stage}/{name}-1bit-s0", network=name, method=None, task=task, metrics=numbers)


def test_decided_claims_come_first(shared: Path) -> None:
    """A claim that the runs support stands above one that they leave open, whatever the order of claims.yaml."""
    text = unescape((shared / "report.html").read_text())
    claims = re.findall(
        r'<p class="claim">(.*?)</p>\s*<ul class="cases"><li><span class="chip ([\w-]+)"', text
    )
    assert [verdict for _, verdict in claims] == ["supported", "undecided"]
    assert "detection" in claims[0][0]


def test_a_shared_search_is_drawn_once_and_names_its_campaigns(shared: Path) -> None:
    """Curve, elimination and cell of one search in three campaigns: one figure each, once on the page."""
    names = {path.stem for path in (shared / "figures").glob("*cp_nas*.svg") if "training" not in path.stem}
    assert names == {"search-main-cp_nas", "survivors-main-cp_nas", "cell-main-cp_nas-s5"}
    text = unescape((shared / "report.html").read_text())
    assert text.count("<b>CP-NAS: the search over time (main, aa, bb).</b>") == 1
    assert text.count("<b>CP-NAS, seed 5 (main, aa, bb).</b>") == 1
    assert text.count("<svg") == len(list((shared / "figures").glob("*.svg")))
    named = [row["campaign"] for row in read_csv(shared / "curves/search.csv") if row["network"] == "CP-NAS"]
    assert set(named) == {"main, aa, bb"} and len(named) == 35


def test_campaigns_with_runs_of_their_own_come_first(shared: Path) -> None:
    """First what retrained, of that first what has searches of its own; not by the alphabet."""
    text = (shared / "report.html").read_text()
    glance = text[text.index('<section id="glance">') : text.index('<section id="claims">')]
    assert re.findall(r'<th scope="row">(\w+)</th>', glance) == ["quick", "main", "aa", "bb"]
    provenance = text[text.index('<section id="provenance">') :]
    assert re.findall(r"<summary>(\w+), \d+ runs", provenance) == ["quick", "main", "aa", "bb"]
    searches = text[text.index('<section id="search">') : text.index('<section id="signal">')]
    heads = re.findall(r'<h3 class="title">cifar10 · campaigns? ([\w, ]+)', searches)
    assert heads == ["quick", "main, aa, bb"]
