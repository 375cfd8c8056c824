"""The detection stage and the direct use with a config, as programs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

from downstream.models import build  # noqa: E402
from pipelines import detect, networks  # noqa: E402
from pipelines.layers import values_of  # noqa: E402
from pipelines.results.checks import read_run  # noqa: E402
from search.errors import InputError  # noqa: E402
from search.files import read_csv, read_json, sha256_file  # noqa: E402
from search.genotype import published  # noqa: E402
from search.weights import hash_state, save_weights  # noqa: E402
from tests.downstream.test_detection_data import make_scenes  # noqa: E402
from tests.downstream.test_detection_train import TINY  # noqa: E402

ROOT = Path(__file__).parents[2]
# A user's config in the old style: any mmdet config can name our backbone.
RETINA = """
custom_imports = dict(imports=["downstream.detection.modules"], allow_failed_imports=False)
default_scope = "mmdet"
root = {root!r}
size = (64, 64)
model = dict(
    type="RetinaNet",
    data_preprocessor=dict(type="DetDataPreprocessor", mean=[128] * 3, std=[64] * 3, pad_size_divisor=32),
    backbone=dict(
        type="GenotypeBackbone", network="PC_DARTS_cifar", channels=4, cells=3, out_strides=(8, 16, 32)
    ),
    neck=dict(type="FPN", in_channels=[16, 32, 64], out_channels=8, num_outs=3),
    bbox_head=dict(
        type="RetinaHead", num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=3, scales_per_octave=1, ratios=[1.0],
            strides=[8, 16, 32],
        ),
    ),
    train_cfg=dict(
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False,
    ),
    test_cfg=dict(nms_pre=50, score_thr=0.01, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20),
)
load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances")
common = dict(type="CountingCocoDataset", data_root=root, metainfo=dict(classes=("square", "stripes")))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        **common, ann_file="annotations/train.json", data_prefix=dict(img="images/train/"),
        pipeline=[*load, dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs")],
    ),
)
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **common, ann_file="annotations/val.json", data_prefix=dict(img="images/val/"), test_mode=True,
        pipeline=[
            load[0], dict(type="Resize", scale=size), load[1], dict(type="PackDetInputs", meta_keys=keys)
        ],
    ),
)
test_evaluator = [dict(type="CocoMetric"), dict(type="VOCMetric", eval_mode="11points")]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9))
default_hooks = dict(checkpoint=dict(type="PlainCheckpointHook"))
custom_hooks = [dict(type="HistoryHook")]
visualizer = dict(type="DetLocalVisualizer")
log_level = "ERROR"
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the chain leaves it before this stage: parameters, data, one network."""
    monkeypatch.chdir(tmp_path)
    make_scenes(tmp_path / "data" / "detection")
    genotype = published("PC_DARTS_cifar")
    entry = networks.Entry("cp_nas-s0", "cp_nas", 0, "genotype", genotype, genotype.hash)
    networks.save_entry(tmp_path / "runs" / "networks" / "cp_nas-s0", entry)
    write_params(tmp_path)
    return tmp_path


def write_params(folder: Path, **changes: Any) -> None:
    """The smallest profile with tiny detection settings."""
    values = values_of("ci")
    values["detection"] = {**TINY, "epochs": 1, **changes}
    values["compute"]["threads"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The program in this process."""
    monkeypatch.setattr(sys, "argv", ["detect", *arguments])
    detect.main()


def test_the_stage_writes_a_complete_record(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "--network", "cp_nas-s0", "--precision", "1bit", "--seed", "1")
    assert capsys.readouterr().out == "runs/detect/cp_nas-s0-1bit-s1\n"
    folder = workplace / "runs" / "detect" / "cp_nas-s0-1bit-s1"
    read_run(folder)
    run = read_json(folder / "run.json")
    assert (run["network"], run["method"], run["precision"], run["seed"]) == (
        "cp_nas-s0",
        "cp_nas",
        "1bit",
        1,
    )
    assert run["dataset"]["stand_in"] is True and run["dataset"]["train_images"] == 8
    assert run["weights"] is None
    cost = read_json(folder / "cost.json")
    assert cost["bops"] > 0 and cost["detector"]["bops"] > cost["bops"] and cost["input"] == 64
    assert (folder / "config.py").is_file() and isinstance(read_json(folder / "detections.json"), list)
    assert [row["epoch"] for row in read_csv(folder / "history.csv")] == ["1"]
    assert sum(path.stat().st_size for path in (folder / "pictures").iterdir()) < 200_000
    assert not list((workplace / "runs" / ".resume").glob("*"))


def test_pretrained_starts_from_the_retrained_weights(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cp_nas")
    write_params(workplace, pretrained=True, block=None)
    arguments = ("--network", "cp_nas-s0", "--precision", "real", "--seed", "0")
    with pytest.raises(
        InputError, match="runs/retrain/imagenet/cp_nas-s0-real-s0/model.safetensors: no such weight"
    ):
        call(monkeypatch, *arguments)
    weights = workplace / "runs/retrain/imagenet/cp_nas-s0-real-s0/model.safetensors"
    network = build(
        published("PC_DARTS_cifar"), precision="real", channels=4, cells=3, classes=5, stem="imagenet"
    )
    save_weights(weights, network)
    call(monkeypatch, *arguments)
    run = read_json(workplace / "runs/detect/cp_nas-s0-real-s0/run.json")
    assert run["precision"] == "real"
    tensors = [key for key in network.state_dict() if not key.startswith("classifier")]
    assert run["weights"] == {
        "sha256": sha256_file(weights),
        "weights_hash": hash_state(network),
        "matched": len(tensors),
    }
    assert f"{len(tensors)} tensors matched, 0 missing" in caplog.text
    save_weights(weights, build("PC_DARTS_cifar", channels=8, cells=3, classes=5, stem="imagenet"))
    with pytest.raises(
        InputError, match="weights are of another network: config.channels: 8 in the file, 4 wanted"
    ):
        call(monkeypatch, *arguments)


def test_bad_arguments_are_one_line_and_exit_2(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pipelines.detect", "--config", str(tmp_path / "none.py")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr == f"error: {tmp_path / 'none.py'}: no such config file\n"


def test_a_killed_run_with_a_config_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_scenes(tmp_path / "scenes")
    config, output = tmp_path / "retina.py", tmp_path / "run"
    config.write_text(RETINA.format(root=str(tmp_path / "scenes")))
    arguments = ["--config", str(config), "--output", str(output), "--set", "train_cfg.max_epochs=4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.detect", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while not (output / "last_checkpoint").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (output / "last_checkpoint").is_file() and not (output / "metrics.json").exists()
    first = read_json(output / "history.json")[0]
    call(monkeypatch, *arguments)
    rows = read_csv(output / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert (
        float(rows[0]["seconds"]) == first["seconds"]
    )  # the row of the killed run: epoch 1 was not repeated
    trained = read_json(output / "metrics.json")
    again = ["--config", str(config), "--evaluate", "--weights", str(output / "model.safetensors")]
    call(monkeypatch, *again, "--output", str(tmp_path / "evaluated"))
    assert read_json(tmp_path / "evaluated" / "metrics.json") == trained
    detections = read_json(output / "detections.json")
    assert read_json(tmp_path / "evaluated" / "detections.json") == detections
    in_their_ids = [
        {**row, "category_id": row["category_id"] + 4} for row in detections
    ]  # of square and stripes
    assert scored_by_pycocotools(tmp_path / "scenes/annotations/val.json", in_their_ids) == (
        trained["coco_map"], trained["coco_map50"]
    )  # fmt: skip
    resolved = [
        "--config",
        str(output / "config.py"),
        "--evaluate",
        "--weights",
        str(output / "model.safetensors"),
    ]
    call(monkeypatch, *resolved, "--output", str(tmp_path / "resolved"))
    assert read_json(tmp_path / "resolved" / "metrics.json") == trained


def scored_by_pycocotools(annotations: Path, detections: list[dict[str, Any]]) -> tuple[float, float]:
    """COCO's mAP and mAP@0.5 of a results file, independently of mmdet."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations))
    scored = COCOeval(truth, truth.loadRes(detections), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    return float(scored.stats[0]), float(scored.stats[1])


def test_direct_use_with_backbone_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scenes(tmp_path / "scenes")
    config, weights = tmp_path / "retina.py", tmp_path / "model.safetensors"
    config.write_text(RETINA.format(root=str(tmp_path / "scenes")))
    save_weights(weights, build("PC_DARTS_cifar", channels=4, cells=3, classes=5, stem="imagenet"))
    arguments = ("--config", str(config), "--weights", str(weights), "--output", str(tmp_path / "run"))
    call(monkeypatch, *arguments, "--set", "train_cfg.max_epochs=1")
    printed = capsys.readouterr().out
    assert set(json.loads(printed)) == {"coco_map", "coco_map50", "voc_map50"}
    with pytest.raises(InputError, match="not this detector's weights: .* missing: .*unexpected"):
        call(monkeypatch, *arguments, "--evaluate")
    with pytest.raises(InputError, match="'oops' is not KEY=VALUE"):
        call(monkeypatch, *arguments, "--set", "oops")


def checkpoint(path: Path, content: Any) -> Path:
    import torch

    torch.save(content, path)
    return path


def test_whole_detectors_weights_by_what_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from downstream.detection.direct import detector_tensors

    tensors = {"backbone.a": torch.ones(2), "head.b": torch.zeros(3)}
    for number, content in enumerate(
        (
            {"state_dict": tensors, "meta": {"epoch": 12}, "optimizer": {}},
            {"model": tensors},
            tensors,
            {"state_dict": {f"module.{key}": value for key, value in tensors.items()}},
        )
    ):
        found = detector_tensors(checkpoint(tmp_path / f"{number}.safetensors", content))  # whatever its name
        assert {key: value.tolist() for key, value in found.items()} == {
            "backbone.a": [1, 1],
            "head.b": [0, 0, 0],
        }
    refused = {
        "lfs.pth": ("version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        "empty.pth": ("", "an empty file"),
        "page.pth": ("<!doctype html>", "a web page"),
    }
    for name, (text, message) in refused.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(
            InputError, match=f"{name}: not a weight file: .*{message}.*; allowed: safetensors"
        ):
            detector_tensors(tmp_path / name)
    with pytest.raises(
        InputError, match="cannot be read as plain tensors .*; where it was written: torch.save"
    ):
        detector_tensors(checkpoint(tmp_path / "module.pth", Path(tmp_path)))
    with pytest.raises(InputError, match="a checkpoint without a state_dict of tensors"):
        detector_tensors(checkpoint(tmp_path / "other.pth", {"epoch": 3}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'model = dict(type="RetinaNet")\ndata = dict(samples_per_gpu=2)\nrunner = dict(max_epochs=12)\n',
            r"c\.py: a config of MMDetection 2\.x: data \(now train_dataloader, .*\), runner \(now train_cfg\)",
        ),
        ('_base_ = ["nothing.py"]\n', r"c\.py: .*nothing\.py"),
        ("model = dict(\n", r"c\.py: cannot be used \(SyntaxError: .*line 1"),
        ("x = 1 / 0\n", r"c\.py: cannot be used \(ZeroDivisionError"),
        (
            'model = dict(type="SSD")\n',
            r"c\.py: no key train_dataloader, train_cfg, optim_wrapper, test_dataloader",
        ),
    ],
)
def test_configs_of_others_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        call(monkeypatch, "--config", "c.py")
    assert "\n" not in str(error.value)


def test_data_that_is_not_there_and_unknown_networks_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_scenes(tmp_path / "scenes")
    config = tmp_path / "retina.py"
    whole = RETINA.format(root=str(tmp_path / "scenes"))
    for text, message in (
        (
            whole.replace("annotations/train.json", "annotations/gone.json"),
            r"retina\.py: no such file: .*gone\.json",
        ),
        (whole.replace('"PC_DARTS_cifar"', '"resnet-19"'), "resnet-19"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=message):
            call(monkeypatch, "--config", str(config), "--output", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.json").exists()
