"""Detectors built from settings, trained, resumed, evaluated and drawn at tiny settings."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

from mmdet.registry import MODELS  # noqa: E402

from downstream.detection import train as training  # noqa: E402
from downstream.detection.compose import CONFIGS, FILES, BackboneSpec, compose  # noqa: E402
from downstream.detection.convolution import BinaryConv  # noqa: E402
from downstream.detection.cost import count_backbone, count_detector  # noqa: E402
from downstream.detection.data import DetectionData, read_manifest  # noqa: E402
from downstream.detection.evaluation import evaluate  # noqa: E402
from downstream.detection.pictures import save_pictures, side_by_side  # noqa: E402
from downstream.detection.progress import HistoryHook  # noqa: E402
from downstream.detection.settings import DetectionSettings  # noqa: E402
from pipelines.datasets.settings import SceneData  # noqa: E402
from pipelines.prepare import prepare  # noqa: E402
from search.errors import InputError  # noqa: E402
from search.weights import hash_state  # noqa: E402
from tests.downstream.test_detection_data import make_scenes, make_voc  # noqa: E402
from tests.search.tiny import BLOCK  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data"
TINY: dict[str, Any] = {
    "detector": "faster_rcnn", "form": "paper", "block": BLOCK, "channels": 4, "handmade_channels": 8, "cells": 3,
    "pretrained": False, "frozen_stages": 0, "norm_eval": False, "train_scales": [[64, 64]],
    "test_scale": [64, 64], "fpn_channels": 8, "binary_neck": True, "fc_channels": 16, "anchor_scale": 4.0,
    "rpn_samples": 16, "roi_samples": 16, "proposals": [20, 20], "optimiser": "sgd", "learning_rate": 0.01,
    "momentum": 0.9, "weight_decay": 1e-4, "clip_norm": 35.0, "batch_size": 4, "epochs": 2, "repeat": 1,
    "warmup_iterations": 2, "steps": [1], "flip": 0.5, "train_images": 0, "test_images": 0,
    "test_batch_size": 2, "score_threshold": 0.05, "nms_iou": 0.5, "max_per_image": 20, "pictures": 2,
    "workers": 0, "evaluate_every": 0,
}  # fmt: skip
SPEC = BackboneSpec("PC_DARTS_cifar", "1bit", "paper", 4, 3)
REAL = BackboneSpec("PC_DARTS_cifar", "real", "paper", 4, 3)


def settings(**changes: Any) -> DetectionSettings:
    """Tiny settings with changes."""
    return DetectionSettings(**{**TINY, **changes})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Eight training and four test scenes."""
    return read_manifest(make_scenes(tmp_path_factory.mktemp("scenes")))


def detector(chosen: DetectionSettings, spec: BackboneSpec, data: DetectionData) -> nn.Module:
    """A detector of these settings with its initial weights."""
    return MODELS.build(compose(chosen, spec, data, seed=0, folder=Path("unused")).model)


def run(folder: Path, data: DetectionData, spec: BackboneSpec = SPEC, **changes: Any) -> training.Outcome:
    """A training at tiny settings."""
    return training.train_and_evaluate(settings(**changes), spec, data, seed=3, folder=folder, threads=1)


@pytest.mark.parametrize("name", ["faster_rcnn", "retinanet", "ssd"])
def test_every_detector_trains_and_gives_all_numbers(
    name: str, scenes: DetectionData, tmp_path: Path
) -> None:
    outcome = run(tmp_path, scenes, detector=name, epochs=1)
    shares = {"coco_map", "coco_map50", "voc_map50"}
    shares |= {f"untrained_{key}" for key in shares}
    rates = {"images_per_second", "test_images_per_second"}
    assert rates | shares | {"seconds", "images_seen"} <= set(outcome.metrics)
    assert all(0 <= outcome.metrics[key] <= 1 for key in shares)
    assert outcome.metrics["images_seen"] == 8
    skipped = {"train_boxes_skipped": 0, "test_boxes_skipped": 0}
    assert outcome.counts == {"train_images": 8, "test_images": 4, **skipped}
    (row,) = outcome.history
    assert row["epoch"] == 1 and row["loss"] > 0 and row["seconds"] > 0
    parts = {key: value for key, value in row.items() if key.startswith("loss_")}
    assert len(parts) == (4 if name == "faster_rcnn" else 2)
    assert row["loss"] == pytest.approx(sum(parts.values()), rel=1e-5)


def test_measures_in_training_change_nothing_but_the_history(scenes: DetectionData, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", scenes, epochs=3)
    curve = run(tmp_path / "curve", scenes, epochs=3, evaluate_every=1)
    assert hash_state(curve.model) == hash_state(plain.model)
    assert [row["loss"] for row in curve.history] == [row["loss"] for row in plain.history]
    measures = ("coco_map", "coco_map50", "voc_map50")
    assert all(0 <= row[key] <= 1 for row in curve.history for key in measures)
    assert [curve.history[-1][key] for key in measures] == [plain.metrics[key] for key in measures]
    assert not any("map" in key for row in plain.history for key in row)


def test_measures_every_other_epoch_are_those_of_that_epoch(scenes: DetectionData, tmp_path: Path) -> None:
    lenient = {"detector": "ssd", "score_threshold": 0.0, "max_per_image": 500, "proposals": [500, 500]}
    longer = run(tmp_path / "longer", scenes, REAL, epochs=3, evaluate_every=2, **lenient)
    shorter = run(tmp_path / "shorter", scenes, REAL, epochs=2, **lenient)
    assert ["voc_map50" in row for row in longer.history] == [False, True, True]
    assert longer.history[1]["voc_map50"] == shorter.metrics["voc_map50"] > 0


def test_an_interrupted_training_goes_on_bit_for_bit(
    scenes: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", scenes)

    def stop(hook: HistoryHook, runner: Any, *_args: Any, **_kwargs: Any) -> None:
        if runner.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(HistoryHook, "before_train_iter", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", scenes)
    assert (tmp_path / "broken" / "epoch_1.pth").is_file()
    resumed = run(tmp_path / "broken", scenes)
    assert hash_state(resumed.model) == hash_state(whole.model)
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in o.history] for o in (resumed, whole)
    ]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 2
    assert {k: v for k, v in resumed.metrics.items() if "map" in k} == {
        k: v for k, v in whole.metrics.items() if "map" in k
    }
    other = training.train_and_evaluate(
        settings(epochs=1), SPEC, scenes, seed=4, folder=tmp_path / "other", threads=1
    )
    assert hash_state(other.model) != hash_state(whole.model)


def test_a_checkpoint_holds_nothing_but_plain_values(scenes: DetectionData, tmp_path: Path) -> None:
    run(tmp_path, scenes, epochs=1)
    stored = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    assert stored["meta"]["epoch"] == 1 and stored["optimizer"]["param_groups"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_1.pth")


@pytest.mark.parametrize("spec", [SPEC, REAL], ids=["1bit", "real"])
def test_easy_scenes_are_learnt(spec: BackboneSpec, scenes: DetectionData, tmp_path: Path) -> None:
    sizes = {"fpn_channels": 16, "fc_channels": 32, "binary_neck": False}
    outcome = run(
        tmp_path,
        scenes,
        spec,
        repeat=12,
        epochs=4,
        steps=[3],
        optimiser="adamw",
        learning_rate=0.008,
        **sizes,
    )
    assert outcome.metrics["coco_map50"] > outcome.metrics["untrained_coco_map50"] + 0.1
    assert outcome.metrics["voc_map50"] > outcome.metrics["untrained_voc_map50"] + 0.1


def test_no_detection_at_all_is_zero(scenes: DetectionData, tmp_path: Path) -> None:
    config = compose(settings(score_threshold=0.999), SPEC, scenes, seed=0, folder=tmp_path)
    assert evaluate(training.make_runner(config, "none")) == {
        "coco_map": 0.0, "coco_map50": 0.0, "voc_map50": 0.0,
    }  # fmt: skip


def test_perfect_detections_score_one(
    scenes: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(settings(), SPEC, scenes, seed=0, folder=tmp_path)
    runner = training.make_runner(config, "perfect")

    def answer(batch: dict[str, Any]) -> list[Any]:
        from mmengine.structures import InstanceData

        for sample in batch["data_samples"]:
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(len(truth))
            )
        return batch["data_samples"]

    monkeypatch.setattr(runner.model, "test_step", answer)
    # COCO's precision of perfect detections is 1 up to its epsilon.
    assert evaluate(runner) == pytest.approx({"coco_map": 1.0, "coco_map50": 1.0, "voc_map50": 1.0})


def test_voc_data_trains_and_evaluates(tmp_path: Path) -> None:
    data = read_manifest(make_voc(tmp_path / "voc", [(1, 1, 40, 40), (5, 5, 5, 20)]))
    outcome = run(tmp_path / "run", data, epochs=1, batch_size=1)
    skipped = {"train_boxes_skipped": 1, "test_boxes_skipped": 1}
    assert outcome.counts == {"train_images": 1, "test_images": 1, **skipped}
    assert outcome.history[0]["loss"] > 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photographs are not beside the repository")
@pytest.mark.parametrize("name", ["aquarium", "bccd"])
def test_real_photographs_in_both_layouts(name: str, tmp_path: Path) -> None:
    source: dict[str, Any] = {
        "aquarium": {"kind": "coco", "train": ["train.json", "train"], "val": ["valid.json", "valid"]},
        "bccd": {
            "kind": "voc",
            "classes": ["RBC", "WBC", "Platelets"],
            "train": ["BCCD/trainval"],
            "val": ["BCCD/test"],
        },
    }[name]
    folder = str(SHARED / {"aquarium": "aquarium_416", "bccd": "bccd"}[name])
    chosen = SceneData(folder=folder, name=name, smallest_side=32, **source)
    data = read_manifest(prepare("detection", chosen, tmp_path / "data"))
    scale = [96, 96]
    outcome = run(
        tmp_path, data, epochs=1, train_images=8, test_images=4, train_scales=[scale], test_scale=scale
    )
    assert (outcome.counts["train_images"], outcome.counts["test_images"]) == (8, 4)
    skipped = outcome.counts["train_boxes_skipped"] + outcome.counts["test_boxes_skipped"]
    assert skipped == {"aquarium": 0, "bccd": 2}[name]
    assert outcome.history[0]["loss"] > 0
    assert all(
        path.stat().st_size < 40_000 for path in save_pictures(tmp_path, outcome.model, outcome.test_set, 2)
    )


def test_a_loss_that_is_no_number_stops_at_once(scenes: DetectionData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss became (nan|inf) in epoch"):
        run(
            tmp_path,
            scenes,
            learning_rate=100.0,
            weight_decay=1.0,
            clip_norm=0.0,
            warmup_iterations=0,
            repeat=4,
        )


def test_the_neck_is_binary_where_it_should_be(scenes: DetectionData) -> None:
    def names(chosen: DetectionSettings, spec: BackboneSpec) -> set[str]:
        modules = detector(chosen, spec, scenes).named_modules()
        return {name.split(".")[0] for name, module in modules if isinstance(module, BinaryConv)}

    assert names(settings(), SPEC) == {"neck", "rpn_head"}
    assert names(settings(binary_neck=False), SPEC) == set()
    assert names(settings(), REAL) == set()
    assert names(settings(detector="retinanet"), SPEC) == {"neck"}


def test_cost_of_the_neck_and_heads_by_hand(scenes: DetectionData) -> None:
    model = detector(settings(), SPEC, scenes)
    backbone, whole = count_backbone(model, (64, 64)), count_detector(model, (64, 64))
    positions = [16 * 16, 8 * 8, 4 * 4, 2 * 2]
    lateral = sum(n * c * 8 for n, c in zip(positions, model.backbone.out_channels, strict=True))
    outputs = sum(n * 8 * 8 * 9 for n in positions)
    shared_rpn = sum(n * 8 * 8 * 9 for n in (*positions, 1))  # the fifth level is a pooled 1 x 1
    assert whole.bops - backbone.bops == lateral + outputs + shared_rpn
    predictors = sum(n * 8 * 3 * (1 + 4) for n in (*positions, 1))
    box_head = 20 * (8 * 7 * 7 * 16 + 16 * 16 + 16 * (2 + 1) + 16 * 2 * 4)
    assert whole.flops - backbone.flops == predictors + box_head
    assert whole.parameters == sum(p.numel() for p in model.parameters())


def test_settings_reach_the_config(scenes: DetectionData) -> None:
    chosen = settings(
        steps=[1, 2],
        epochs=3,
        repeat=3,
        learning_rate=0.02,
        clip_norm=0.0,
        nms_iou=0.6,
        max_per_image=7,
        test_images=2,
    )
    config = compose(chosen, SPEC, scenes, seed=5, folder=Path("somewhere"))
    assert config.optim_wrapper.optimizer.lr == 0.02 and config.optim_wrapper.clip_grad is None
    assert config.param_scheduler[0].end == 2 and config.param_scheduler[1].milestones == [1, 2]
    assert config.train_dataloader.dataset.times == 3
    assert len(config.test_dataloader.dataset.indices) == 2
    final = config.model.test_cfg.rcnn
    assert (final.nms.iou_threshold, final.max_per_img, final.score_thr) == (0.6, 7, 0.05)
    assert config.model.roi_head.bbox_head.num_classes == 2
    assert config.randomness.seed == 5


@pytest.mark.parametrize(
    "file",
    [CONFIGS / f"{name}{data}.py" for name in FILES.values() for data in ("", "_coco")],
    ids=lambda path: path.stem,
)
def test_the_config_files_build_with_the_recipe_of_the_paper(file: Path) -> None:
    from mmengine.config import Config

    config = Config.fromfile(file, format_python_code=False)
    model = MODELS.build(config.model)
    classes = 80 if file.stem.endswith("coco") else 20
    head = model.roi_head.bbox_head if hasattr(model, "roi_head") else model.bbox_head
    assert head.num_classes == classes
    # IDa-Det's schedule (literature.md): SGD 0.004, 12 epochs, steps 8 and 11, warm-up 200, clip 35, batch 4.
    assert config.optim_wrapper.optimizer.lr == 0.004 and config.optim_wrapper.clip_grad.max_norm == 35
    assert config.train_cfg.max_epochs == 12 and config.param_scheduler[1].milestones == [8, 11]
    assert config.param_scheduler[0].end == 200 and config.train_dataloader.batch_size == 4


def test_pictures_are_few_small_and_true(scenes: DetectionData, tmp_path: Path) -> None:
    config = compose(settings(), SPEC, scenes, seed=0, folder=tmp_path / "run")
    runner = training.make_runner(config, "pictures")
    test_set = runner.build_dataloader(config.test_dataloader).dataset
    paths = save_pictures(tmp_path / "pictures", runner.model, test_set, 3)
    assert [path.name for path in paths] == ["00.svg", "01.svg", "02.svg"]
    assert all(path.stat().st_size < 16_000 for path in paths)
    truth = test_set.get_data_info(1)["instances"]
    drawn = ElementTree.parse(paths[1]).getroot().findall(".//{*}g/{*}g")[0].findall("{*}rect")
    boxes = [[float(rect.get(key, "nan")) for key in ("x", "y", "width", "height")] for rect in drawn]
    wanted = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (item["bbox"] for item in truth)]
    torch.testing.assert_close(
        torch.tensor(boxes), torch.tensor(wanted, dtype=torch.float32), rtol=0, atol=0.06
    )


def test_names_in_a_picture_are_escaped(scenes: DetectionData) -> None:
    image = next(scenes.test.images.glob("*.png"))
    svg = side_by_side(image, [([1, 2, 3, 4], 0, None)], [([1, 2, 3, 4], 0, 0.5)], ["a<b&c"])
    texts = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["ground truth", "a<b&c", "detections", "a<b&c 0.50"]
