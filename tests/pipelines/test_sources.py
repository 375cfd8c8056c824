"""Fingerprints of the user's own folders: what changes them, and what is read for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import sources
from pipelines.datasets.sources import fingerprints

FOLDER = {"kind": "folder"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in ("train/ant/0.jpg", "train/bee/0.jpg", "val/ant/0.jpg", "val/bee/0.jpg"):
        (tmp_path / "user" / place).parent.mkdir(parents=True)
        (tmp_path / "user" / place).write_text(place)
    return tmp_path / "user"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed."""
    files: list[Path] = []
    whole = sources.sha256_file

    def noted(path: Path) -> str:
        files.append(Path(path))
        return whole(path)

    monkeypatch.setattr(sources, "sha256_file", noted)
    return files


def of(root: Path, tmp_path: Path, **settings: Any) -> str:
    data = {"imagenet": {**FOLDER, "folder": str(root), **settings}}
    return fingerprints(data, tmp_path / "cache")["imagenet"]


def test_a_file_is_hashed_once_and_again_when_its_size_or_time_changed(
    root: Path, tmp_path: Path, read: list[Path]
) -> None:
    first = of(root, tmp_path)
    assert len(read) == 4 and first.startswith("sha256-")
    read.clear()
    assert of(root, tmp_path) == first and read == []
    touched = root / "train/ant/0.jpg"
    os.utime(touched, ns=(1, 1))
    assert of(root, tmp_path) == first and read == [touched]
    touched.write_text("train/ant/1.jpg")  # as long as before
    assert of(root, tmp_path) != first


def test_names_count_and_what_is_hidden_or_elsewhere_does_not(root: Path, tmp_path: Path) -> None:
    first = of(root, tmp_path)
    for place in (".DS_Store", "train/ant/._0.jpg", "train/.ipynb_checkpoints/x.jpg", "test/ant/0.jpg"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text("x")
    assert of(root, tmp_path) == first
    (root / "val/ant/0.jpg").rename(root / "val/ant/1.jpg")
    assert of(root, tmp_path) != first


def test_the_same_pictures_elsewhere_have_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    first = of(root, tmp_path)
    moved = root.rename(tmp_path / "moved")
    assert of(root, tmp_path) == sources.ABSENT
    assert of(moved, tmp_path) == first
    (moved / "train/ant/loop").symlink_to(moved / "train")  # a circle of links ends
    of(moved, tmp_path)


def test_a_damaged_cache_is_made_again(root: Path, tmp_path: Path) -> None:
    first = of(root, tmp_path)
    for text in ("", "[]", '{"root": 1}', '{"files": null, "root": "x"}'):
        (tmp_path / "cache/imagenet.json").write_text(text)
        assert of(root, tmp_path) == first


def test_what_each_kind_reads(root: Path, tmp_path: Path) -> None:
    (root / "VOC2007/JPEGImages").mkdir(parents=True)
    (root / "VOC2007/JPEGImages/1.jpg").write_text("x")
    (root / "train.json").write_text("{}")

    def places(name: str, **settings: Any) -> list[str]:
        fingerprints({name: {"folder": str(root), **settings}}, tmp_path / "cache")
        return sorted(sources.read_json(tmp_path / f"cache/{name}.json")["files"])

    coco = {"train": ["train.json", "train"], "val": ["train.json", "train"]}
    assert places("detection", kind="coco", **coco) == ["train.json", "train/ant/0.jpg", "train/bee/0.jpg"]
    split = {"train": ["VOC2007/trainval"], "val": ["VOC2007/test"]}
    assert places("detection", kind="voc", **split) == ["VOC2007/JPEGImages/1.jpg"]
    assert len(places("reid", kind="custom")) == 6


@pytest.mark.parametrize("settings", [{"kind": "cifar10-folder", "folder": None}, {"kind": "folder"}])
def test_data_that_is_made_has_none(settings: dict[str, Any], tmp_path: Path) -> None:
    assert fingerprints({"imagenet": settings}, tmp_path / "cache") == {"imagenet": sources.NONE}
    assert not (tmp_path / "cache").exists()
