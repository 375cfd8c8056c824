"""MMDetection's own programs on our configs, and our checkpoints in them."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

mmdet = pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

import mmcv  # noqa: E402
from mmdet.datasets import VOCDataset  # noqa: E402

from downstream.detection import operators  # noqa: E402
from downstream.detection.compose import CONFIGS  # noqa: E402
from search.files import read_json  # noqa: E402
from tests.downstream.test_detection_data import make_voc  # noqa: E402

operators.install()
ROOT = Path(__file__).parents[2]
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
PERSISTED = operators.compiled() or Path(mmcv.__file__).with_name("_ext.py").is_file()

# A user's config: ours, smaller. Nothing but sizes and classes is changed.
SMALL = """
from mmengine.config import read_base

with read_base():
    from downstream.detection.configs.faster_rcnn_fpn import *

model["backbone"].update(channels=8)
model["neck"].update(in_channels=[8, 16, 32, 64], out_channels=8)
model["rpn_head"].update(in_channels=8, feat_channels=8)
model["roi_head"]["bbox_roi_extractor"]["out_channels"] = 8
model["roi_head"]["bbox_head"].update(in_channels=8, fc_out_channels=16)
train_dataloader["dataset"]["dataset"]["pipeline"][2]["scales"] = [(64, 64)]
for loader in (val_dataloader, test_dataloader):
    loader["dataset"]["pipeline"][1]["scale"] = (64, 64)
for loader in (train_dataloader, val_dataloader, test_dataloader):
    loader["num_workers"] = 0
train_cfg["max_epochs"] = 1
"""


def tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    """Run one of MMDetection's programs as it is."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")


def prepare_voc(folder: Path) -> None:
    """VOC's 20 classes with one picture of 07 and one of 12 in ``data/detection``, where the configs look for it."""
    made = make_voc(
        folder, [(5, 5, 50, 40)], years=("VOC2007", "VOC2012"), classes=VOCDataset.METAINFO["classes"]
    )
    assert made == folder / "data" / "detection"


@pytest.mark.skipif(not TOOLS.is_dir(), reason="this mmdet comes without its programs")
@pytest.mark.skipif(
    not PERSISTED, reason="mmcv has no operators: python -m downstream.detection.operators --persist"
)
def test_a_config_as_it_is_in_a_process_of_mmdets_own(tmp_path: Path) -> None:
    """``python tools/train.py ssd.py``: nothing of ours is imported but what the config file names."""
    prepare_voc(tmp_path)
    program = [sys.executable, str(TOOLS / "train.py"), str(CONFIGS / "ssd.py"), "--work-dir", "run"]
    small = ["--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.dataset.times=1"]
    found = subprocess.run(
        [*program, *small], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    (row,) = read_json(tmp_path / "run" / "history.json")
    assert row["loss"] == pytest.approx(row["loss_cls"] + row["loss_bbox"], rel=1e-5)
    assert (tmp_path / "run" / "epoch_1.pth").is_file()
    assert "pascal_voc/mAP" in found.stderr + found.stdout


@pytest.mark.skipif(not TOOLS.is_dir(), reason="this mmdet comes without its programs")
def test_train_resume_and_test_with_mmdets_own_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_voc(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    tool(monkeypatch, "train", "small.py", "--work-dir", "run")
    assert [row["epoch"] for row in read_json(tmp_path / "run" / "history.json")] == [1]
    # The resumed run loads the checkpoint that torch.load would refuse if it held objects.
    options = ("--cfg-options", "train_cfg.max_epochs=2", "visualizer.name=second")
    tool(monkeypatch, "train", "small.py", "--work-dir", "run", "--resume", *options)
    assert [row["epoch"] for row in read_json(tmp_path / "run" / "history.json")] == [1, 2]
    tool(
        monkeypatch,
        "test",
        "small.py",
        "run/epoch_2.pth",
        "--work-dir",
        "tested",
        "--cfg-options",
        "visualizer.name=third",
    )
    (written,) = (tmp_path / "tested").glob("*/*.json")
    assert {"pascal_voc/mAP", "pascal_voc/AP50"} <= set(read_json(written))
