"""Rows of the result tables: what data they are of, whose cost they show, which runs they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.results.column import Row, Table, own_column
from pipelines.results.columns import TABLES
from pipelines.results.defaults import ADDED, with_defaults
from pipelines.results.literature import dataset_names, literature
from pipelines.results.overview import campaigns, facts
from pipelines.results.pictures import slug
from pipelines.results.records import Library, read_records
from pipelines.results.rows import table_rows
from pipelines.results.views import View, views
from search.files import read_json, write_json
from tests.pipelines.results_records import (
    CIFAR,
    FACES,
    FOLDER,
    SCENES,
    detection_cost,
    sha,
    write_retrain,
    write_run,
    write_search,
    write_transfer,
)

SPECS = {spec.name: spec for spec in TABLES}
BASE = {"epochs": 3, "images_seen": 6000, "seconds": 30.0}
DETECTED = {
    "coco_map": 0.4,
    "coco_map50": 0.6,
    "voc_map50": 0.7,
    "untrained_coco_map50": 0.01,
    "untrained_voc_map50": 0.02,
}


def library(root: Path) -> Library:
    """The records below ``root``."""
    return Library(tuple(read_records(root)))


def ours(name: str, found: Library) -> list[Row]:
    """The rows of a table that were measured here."""
    return [row for row in table_rows(SPECS[name], found) if row["n"]]


def shown(name: str, found: Library) -> list[View]:
    """The sections of a table that were measured here."""
    spec: Table = SPECS[name]
    return [view for view in views(spec, table_rows(spec, found)) if view.kind == "ours"]


def handmade(root: Path, stage: str, task: str, data: dict[str, Any], **changes: Any) -> None:
    """A real-valued ResNet-18 that was trained on the given data."""
    place = f"{stage}/{task}/{data['name']}" if stage == "retrain" else f"{stage}/{slug(data['name'])}"
    handmade_in(root, f"x/{place}", task, data, **changes)


def handmade_in(root: Path, place: str, task: str, data: dict[str, Any], **changes: Any) -> None:
    """The same in the folder ``campaign/stage/...`` of the records."""
    campaign, stage, rest = place.split("/", 2)
    values = {
        "retrain": {**BASE, "accuracy": 0.5},
        "detect": {**BASE, **DETECTED},
        "reid": {**BASE, "map": 0.4, "rank1": 0.5, "untrained_map": 0.1, "untrained_rank1": 0.1},
    }[stage]
    options = {"network": "resnet-18", "method": None, "precision": "real", "form": None} | changes
    write_run(root / campaign, f"{stage}/{rest}", task=task, metrics=values, dataset=data, **options)


def test_a_detection_shows_the_cost_of_the_whole_detector(tmp_path: Path) -> None:
    """Operations and memory are the detector's, the backbone's stand beside them; W/A is the backbone's."""
    write_transfer(tmp_path / "x", "cp_nas", 0)
    (row,) = ours("detection", library(tmp_path))
    whole, backbone = detection_cost("1bit")["detector"], detection_cost("1bit")
    assert row["ops_strict_M"] == whole["ops_strict"] / 1e6 > 40 and row["mbit"] == whole["mbit"]
    assert row["flops_M"] == whole["flops"] / 1e6 and row["bops_M"] == whole["bops"] / 1e6
    assert row["backbone_ops_strict_M"] == backbone["ops_strict"] / 1e6 < 2
    assert (row["backbone_mbit"], row["wa"]) == (backbone["mbit"], "1/1")
    (view,) = shown("detection", library(tmp_path))
    heads = [column.head for column in view.columns]
    assert {"W/A of the backbone", "detector OPs strict M", "backbone OPs strict M"} <= set(heads)
    cells = dict(zip(heads, view.cells(view.columns)[0], strict=True))
    assert (cells["detector OPs strict M"], cells["backbone OPs strict M"]) == ("41.09", "1.09")


def test_a_detection_without_the_detectors_count_shows_none(tmp_path: Path) -> None:
    """The backbone's cost never stands in the detector's column; W1A32 layers of the backbone are named."""
    write_transfer(tmp_path / "x", "cp_nas", 0)
    path = tmp_path / "x/detect/cp_nas-s0-1bit-s0/cost.json"
    counted = {key: value for key, value in read_json(path).items() if key != "detector"}
    write_json(path, counted | {"w1a32_macs": 5_000_000})
    (row,) = ours("detection", library(tmp_path))
    assert row["ops_strict_M"] is None and row["mbit"] is None and row["backbone_mbit"] == 0.38
    assert row["wa"] == "1/1 + 1/32"


@pytest.mark.parametrize(
    ("detector", "precision", "expected"),
    [("faster_rcnn", "1bit", "yes"), ("faster_rcnn", "real", "no"), ("ssd", "1bit", "no")],
)
def test_a_binary_neck_is_one_that_the_detector_has(
    tmp_path: Path, detector: str, precision: str, expected: str
) -> None:
    """The setting means nothing for a real twin, nor for SSD, which has neither FPN nor RPN."""
    params = {"detection": {"detector": detector, "binary_neck": True}}
    handmade(tmp_path, "detect", "detection", SCENES, params=params, precision=precision)
    (row,) = ours("detection", library(tmp_path))
    assert row["binary_neck"] == expected


PETS = {**CIFAR, "name": "pets"}
"""Real photographs that no paper used: neither a stand-in nor the papers' data."""


def test_other_data_fill_columns_of_their_own(tmp_path: Path) -> None:
    """Three kinds of data, three columns; only the papers' data get the literature's numbers beside them."""
    kinds = {
        "cifar10": CIFAR,
        "pets": PETS,
        "cifar10-small": {**CIFAR, "name": "cifar10-small", "stand_in": True},
    }
    for data in kinds.values():
        handmade(tmp_path, "retrain", "cifar10", data)
    rows = {row["dataset"]: row for row in ours("classification", library(tmp_path))}
    filled = {
        name: [key for key in row if key.endswith("accuracy") and row[key]] for name, row in rows.items()
    }
    assert filled == {
        "cifar10": ["accuracy", "paper_accuracy"],
        "pets": ["other_accuracy"],
        "cifar10-small": ["stand_in_accuracy"],
    }
    assert {row["data_kind"] for row in rows.values()} == {"paper", "other", "stand-in"}
    assert rows["pets"]["source"] is None and rows["cifar10-small"]["paper_name"] is None
    assert own_column(rows["pets"], "top5_std") == "other_top5_std"


def test_views_mark_other_data(tmp_path: Path) -> None:
    """In the heading and in the note; no column for a paper's number."""
    for data in (CIFAR, PETS):
        handmade(tmp_path, "retrain", "cifar10", data)
    paper, other = shown("classification", library(tmp_path))
    assert (paper.title, other.title) == ("cifar10 · campaign x", "pets · campaign x · other data")
    assert other.note.startswith("Other data than the papers': not comparable with any paper's number.")
    assert paper.comparable and not other.comparable and not other.stand_in
    assert [any(column.head.startswith("paper") for column in view.columns) for view in (paper, other)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("stage", "task", "name", "joined"),
    [
        ("detect", "detection", "voc-0712", "Faster R-CNN ResNet-18"),
        ("detect", "detection", "coco-2017", None),
        ("detect", "detection", "bccd", None),
        ("reid", "reid", "market1501", "ResNet-18, strong baseline"),
        ("reid", "reid", "msmt17", None),
        ("reid", "reid", "market1501 -> msmt17", None),
    ],
)
def test_the_literatures_number_is_of_the_same_data_set(
    tmp_path: Path, stage: str, task: str, name: str, joined: str | None
) -> None:
    """A VOC number stands beside a run on VOC, not on COCO and not on blood cells."""
    handmade(tmp_path, stage, task, {**CIFAR, "name": name})
    (row,) = ours({"detect": "detection"}.get(stage, stage), library(tmp_path))
    assert row["paper_name"] == joined


def test_the_papers_data_sets_are_named_in_one_place(tmp_path: Path) -> None:
    """Every data set that a cited row is of has our name; the paper profile's data are among them; a cost has none."""
    cited = {row["dataset"] for row in literature() if row["table"] != "cost"}
    assert cited <= set(dataset_names().values())
    assert {"cifar10", "imagenet-1k", "voc-0712", "market1501"} <= set(dataset_names())
    write_run(tmp_path / "x", "cost/a/retrain-cifar10-1bit", network="a", method=None, task="c", metrics={})
    assert library(tmp_path).runs[0].data_kind == "other"


def test_the_floor_of_a_detection_is_by_the_rule_of_its_value(tmp_path: Path) -> None:
    """Beside VOC's mAP stands VOC's of the untrained detector; COCO's has a column of its own."""
    write_transfer(tmp_path / "x", "cp_nas", 0)
    (row,) = ours("detection", library(tmp_path))
    assert (row["stand_in_untrained_voc_map50"], row["stand_in_untrained_coco_map50"]) == (2.0, 1.0)
    value = SPECS["detection"].metrics[0]
    assert (value.key, value.floor) == ("voc_map50", "untrained_voc_map50") and "VOC07 11-point" in value.head


def test_raw_pixels_are_a_floor_of_reid(tmp_path: Path) -> None:
    """In the CSV and in the view."""
    write_transfer(tmp_path / "x", "cp_nas", 0)
    (row,) = ours("reid", library(tmp_path))
    assert (row["stand_in_pixels_map"], row["stand_in_pixels_rank1"]) == (25.0, 60.0)
    (view,) = shown("reid", library(tmp_path))
    assert {"pixels mAP %", "pixels rank-1 %"} <= {column.head for column in view.columns}


def test_views_say_how_many_searches_a_mean_rests_on(tmp_path: Path) -> None:
    """Two trainings of one found network are two runs of one search; a hand-made network has none."""
    for seed in range(2):
        write_retrain(tmp_path / "x", "cp_nas", 0, "1bit", "cifar10", seed)
        write_retrain(tmp_path / "x", "random", seed, "1bit", "cifar10", 0)
    handmade(tmp_path, "retrain", "cifar10", CIFAR)
    (view,) = shown("classification", library(tmp_path))
    place = [column.head for column in view.columns].index("n")
    cells = {cells[0]: cells[place] for cells in view.cells(view.columns)}
    assert cells == {
        "CP-NAS": "2 (1 search)",
        "Random search": "2 (2 searches)",
        "resnet-18 (real-valued)": "1",
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Campaigns a and b with the same search, and c with another one of the same name; b retrained it."""
    root = tmp_path_factory.mktemp("shared")
    for profile in "abc":
        write_search(root / profile, "cp_nas", 0)
    write_retrain(root / "b", "cp_nas", 0, "1bit", "cifar10")
    for path in root.glob("*/search/*/provenance.json"):
        seconds = 7200 if path.parts[-4] == "c" else 3600
        write_json(path, {**read_json(path), "wall_seconds": seconds})
    return library(root)


def test_a_shared_search_is_one_row_with_its_campaigns(shared: Library) -> None:
    """Not two runs in two tables; a search of other time is another one."""
    assert [(row["campaign"], row["n"]) for row in ours("search", shared)] == [(("a", "b"), 1), (("c",), 1)]
    assert [view.title for view in shown("search", shared)] == [
        "cifar10 · campaigns a, b",
        "cifar10 · campaign c",
    ]
    assert [names for _, names in shared.distinct("search")] == [("a", "b"), ("c",)]
    assert len(shared.runs) == 4 and len(shared.distinct()) == 3


def test_the_overview_counts_a_shared_search_once(shared: Library) -> None:
    """Runs, searches and hours: once, for the campaign with most runs; the other one names it."""
    counted = dict(facts(shared, []))
    assert (counted["Runs recorded"], counted["Searches"], counted["Campaigns"]) == ("3", "2", "a, b, c")
    rows = {row["campaign"]: row for row in campaigns(shared)}
    assert {name: row["searches"] for name, row in rows.items()} == {
        "a": ("1 of b",),
        "b": ("1",),
        "c": ("1",),
    }
    assert {name: row["hours"] for name, row in rows.items()} == {"a": "0.0", "b": "1.0", "c": "2.0"}


def retraining(root: Path, seed: int, params: dict[str, Any], **changes: Any) -> None:
    """A retraining of ResNet-18 with the given settings."""
    options = {"network": "resnet-18", "method": None, "precision": "1bit", "form": None} | changes
    place = f"retrain/imagenet/resnet-18-1bit-s{seed}"
    metrics = {**BASE, "accuracy": 0.5, "top5": 0.8, "loss": 1.5}
    write_run(root / "x", place, task="imagenet", seed=seed, params=params, metrics=metrics, **options)


def settings_of(**changes: Any) -> dict[str, Any]:
    """Settings of a retraining as older code recorded them, with changes in their three mappings."""
    old: dict[str, Any] = {"loss": {"teacher": None}, "crop": {"size": 64}, "epochs": 3}
    loss, crop = ({**old[part], **changes.pop(part, {})} for part in ("loss", "crop"))
    return {"retrain": {"imagenet": {**old, "loss": loss, "crop": crop, **changes}}}


NEUTRAL = {"loss": {"teacher_cache": "none"}, "crop": {"decoder": "pil"}, "recalibrate_images": 0}


def test_later_keys_with_their_neutral_value_open_no_second_row(tmp_path: Path) -> None:
    """A run without the keys and one with them are one experiment; another value is another one."""
    retraining(tmp_path, 0, settings_of())
    retraining(tmp_path, 1, settings_of(**NEUTRAL))
    retraining(tmp_path, 2, settings_of(**NEUTRAL | {"recalibrate_images": 500}))
    retraining(tmp_path, 3, settings_of(**NEUTRAL | {"crop": {"decoder": "torchvision"}}))
    rows = ours("classification", library(tmp_path))
    assert sorted(row["seeds"] for row in rows) == [("0", "1"), ("2",), ("3",)]


def test_a_handmade_network_is_one_row_whatever_form_was_recorded(tmp_path: Path) -> None:
    """Older code wrote the form of the genotypes beside it."""
    for seed, form in ((0, "paper"), (1, None)):
        place = f"x/retrain/imagenet/resnet-18-real-s{seed}"
        handmade_in(tmp_path, place, "imagenet", FOLDER, seed=seed, form=form, schema=1)
    (row,) = ours("classification", library(tmp_path))
    assert (row["n"], row["form"]) == (2, None)


def test_every_later_key_is_one_of_todays_settings() -> None:
    """A misspelt key would fill in nothing that parts rows: each stands in params.yaml, or it is refused there."""
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
    params |= params["search"]  # records of searches hold its parts alone
    assert with_defaults(params) == params
    for path in ADDED:
        holders = [params]
        for name in path.split(".")[:-1]:
            holders = [inner for holder in holders for key, inner in holder.items() if name in ("*", key)]
        assert holders and all(path.rpartition(".")[2] in holder for holder in holders), path


def test_reid_from_nothing_is_one_row_whatever_the_setting_said(tmp_path: Path) -> None:
    """Older code recorded `pretrained: true` for networks that have no weights to start from."""
    for seed, pretrained, weights in ((0, True, None), (1, False, None), (2, True, {"sha256": "ab"})):
        data, params = {**FACES, "name": f"faces-{seed}"}, {"reid": {"pretrained": pretrained}}
        options: dict[str, Any] = {"weights": weights, "params": params, "schema": 1}
        handmade(tmp_path, "reid", "reid", data, network="osnet_x0_25", **options)
    first, second, third = (record.settings for record in library(tmp_path).runs)
    assert first == second != third


def test_a_transfer_run_finds_the_retraining_it_started_from_by_its_weights(tmp_path: Path) -> None:
    """In another campaign too, and not a namesake; a record of older code names no hash."""
    data = {**FACES, "name": "faces"}
    for campaign, weights in (("x", "a"), ("y", "b")):
        place = f"{campaign}/retrain/imagenet/resnet-18-real-s0"
        handmade_in(tmp_path, place, "imagenet", FOLDER, weights_hash=sha(weights))
    handmade_in(tmp_path, "x/reid/by-hash", "reid", data, weights={"weights_hash": sha("b")})
    handmade_in(tmp_path, "x/reid/by-name", "reid", data, weights={"sha256": "c"})
    handmade_in(tmp_path, "x/reid/unknown", "reid", data, weights={"weights_hash": sha("c")})
    found = library(tmp_path)
    by_key = {record.key: found.backbone_of(record) for record in found.of("reid")}
    assert by_key["by-hash"] is not None and by_key["by-hash"].campaign == "y"
    assert by_key["by-name"] is not None and by_key["by-name"].campaign == "x"
    assert by_key["unknown"] is None


def evaluated(root: Path, seed: int, weights: str, same_machine: bool, **metrics: float) -> None:
    """The evaluation of exported weights."""
    values = {"accuracy": 0.5, "top5": 0.8, "loss": 1.5, "images": 200, "recorded_accuracy": 0.5} | metrics
    write_run(
        root / "x",
        f"evaluate/imagenet/resnet-18-1bit-s{seed}",
        network="resnet-18",
        method=None,
        form=None,
        task="imagenet",
        seed=seed,
        metrics=values,
        counted=False,
        weights_hash=sha(weights),
        same_machine=same_machine,
    )


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [
        ([], None),
        ([(0, "w0", True, {})], "1 of 2 exact"),
        ([(0, "w0", True, {}), (1, "w1", True, {})], "2 of 2 exact"),
        ([(0, "w0", True, {}), (1, "w1", False, {})], "2 of 2 exact, other machine"),
        (
            [(0, "w0", False, {"accuracy": 0.505, "loss": 1.5021}), (1, "w1", False, {"loss": 1.501})],
            "2 of 2, other machine, largest difference: accuracy 0.50 points, loss 0.0021",
        ),
        ([(0, "other weights", True, {})], None),
    ],
)
def test_read_back_says_what_the_exported_weights_gave(
    tmp_path: Path, evaluations: list[tuple[int, str, bool, dict[str, float]]], expected: str | None
) -> None:
    """Joined by the weights' own hash: the evaluation of other weights of the same name says nothing."""
    for seed in range(2):
        retraining(tmp_path, seed, settings_of(), weights_hash=sha(f"w{seed}"))
    for seed, weights, same_machine, metrics in evaluations:
        evaluated(tmp_path, seed, weights, same_machine, **metrics)
    (row,) = ours("classification", library(tmp_path))
    assert row["read_back"] == expected
