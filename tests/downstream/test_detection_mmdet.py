"""MMDetection's own programs on our configs, and our checkpoints in them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

mmdet = pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

from downstream.detection import operators  # noqa: E402
from search.files import read_json  # noqa: E402
from tests.downstream.test_detection_data import make_voc  # noqa: E402

operators.install()
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"

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
for part in train_dataloader["dataset"]["dataset"]["datasets"]:
    part["pipeline"][2]["scales"] = [(64, 64)]
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


@pytest.mark.skipif(not TOOLS.is_dir(), reason="this mmdet comes without its programs")
def test_train_resume_and_test_with_mmdets_own_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for year in ("VOC2007", "VOC2012"):
        folder = make_voc(tmp_path / year, [(5, 5, 50, 40)])
        (tmp_path / "data" / "VOCdevkit").mkdir(parents=True, exist_ok=True)
        (folder / "VOC2007").rename(tmp_path / "data" / "VOCdevkit" / year)
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
