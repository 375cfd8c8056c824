"""Manifests, COCO and VOC data; also the tiny scenes that the other detection tests train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

from downstream.detection.data import Part, balanced_subset, read_manifest  # noqa: E402
from downstream.detection.datasets import CountingCocoDataset  # noqa: E402
from pipelines.datasets.settings import SceneData  # noqa: E402
from pipelines.prepare import prepare  # noqa: E402
from search.errors import InputError  # noqa: E402
from search.files import read_json, write_json  # noqa: E402

CLASSES = ("square", "stripes")
BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd" / "BCCD"


def make_scenes(folder: Path, train: int = 8, val: int = 4, size: int = 64) -> Path:
    """A prepared COCO data set of two easy classes on grey noise, with exact boxes."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        (folder / "images" / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            scene = random.integers(90, 130, (size, size, 3)).astype(np.uint8)
            for label in range(2):
                edge = int(random.integers(20, 30))
                x, y = (
                    int(random.integers(0, size - edge)),
                    int(random.integers(0, size // 2 - edge + 1)) + label * 32,
                )
                patch = scene[y : y + edge, x : x + edge]
                patch[...] = (230, 40, 40) if label == 0 else (30, 30, 200)
                patch[:: 4 if label else edge] = 255
                height = patch.shape[0]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": label + 5, "iscrowd": 0,
                     "bbox": [x, y, edge, height], "area": edge * height}
                )  # fmt: skip
            name = f"{number:03d}.png"
            Image.fromarray(scene).save(folder / "images" / split / name)
            images.append({"id": number, "file_name": name, "width": size, "height": size})
        categories = [{"id": label + 5, "name": name} for label, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / f"{split}.json", content)
    parts = {
        split: {"annotations": f"annotations/{split}.json", "images": f"images/{split}"}
        for split in ("train", "val")
    }
    manifest = {"schema": 1, "name": "tiny-scenes", "stand_in": True, "note": "a test's", "sha256": "ab" * 32}
    write_json(
        folder / "manifest.json", {**manifest, "root": ".", "format": "coco", "classes": CLASSES, **parts}
    )
    return folder


def make_voc(
    folder: Path,
    boxes: list[tuple[int, int, int, int]],
    suffix: str = ".jpg",
    years: tuple[str, ...] = ("VOC2007",),
    classes: tuple[str, ...] = ("dog", "cat"),
) -> Path:
    """A VOC folder of one picture of 64 x 48 pixels a year, the first one the test's too, prepared in ``folder/data``.

    Every box is a cat's.
    """
    objects = "".join(
        f"<object><name>cat</name><difficult>0</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    for year in years:
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / year / name).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(folder / year / "JPEGImages" / f"000001{suffix}")
        (folder / year / "Annotations" / "000001.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        for split in ("trainval", "test"):
            (folder / year / "ImageSets" / "Main" / f"{split}.txt").write_text("000001\n")
    settings = SceneData(
        kind="voc",
        folder=str(folder),
        name="tiny-voc",
        classes=list(classes),
        smallest_side=32,
        train=[f"{year}/trainval" for year in years],
        val=[f"{years[0]}/test"],
    )
    return prepare("detection", settings, folder / "data")


def dataset_of(part: Part, classes: tuple[str, ...], **more: Any) -> CountingCocoDataset:
    """The data set that mmdet reads a part with."""
    return CountingCocoDataset(
        ann_file=str(part.annotations),
        data_prefix={"img": f"{part.images}/"},
        metainfo={"classes": classes},
        **more,
    )


def test_coco_manifest(tmp_path: Path) -> None:
    data = read_manifest(make_scenes(tmp_path))
    assert (data.name, data.stand_in, data.classes) == ("tiny-scenes", True, CLASSES)
    assert data.test.annotations == tmp_path / "annotations" / "val.json"
    assert [part.images for part in data.train] == [tmp_path / "images" / "train"]


def test_labels_follow_the_names_whatever_the_files_order(tmp_path: Path) -> None:
    manifest = read_json(make_scenes(tmp_path) / "manifest.json")
    write_json(tmp_path / "manifest.json", {**manifest, "classes": ["stripes", "square"]})
    data = read_manifest(tmp_path)
    assert data.classes == ("stripes", "square")
    part = data.test
    dataset = dataset_of(part, data.classes)
    wanted = {a["image_id"]: [] for a in read_json(part.annotations)["annotations"]}
    names = {5: "square", 6: "stripes"}
    for annotation in read_json(part.annotations)["annotations"]:
        wanted[annotation["image_id"]].append(names[annotation["category_id"]])
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        assert [data.classes[item["bbox_label"]] for item in info["instances"]] == wanted[info["img_id"]]


def test_coco_boxes_without_area_are_skipped_and_counted(tmp_path: Path) -> None:
    data = read_manifest(make_scenes(tmp_path))
    content = read_json(data.test.annotations)
    content["annotations"][0]["bbox"][2] = 0
    write_json(data.test.annotations, content)
    dataset = CountingCocoDataset(
        ann_file=str(data.test.annotations),
        data_prefix={"img": ""},
        metainfo={"classes": CLASSES},
        lazy_init=False,
    )
    assert dataset.skipped_boxes == 1
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))) == 7


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_voc_boxes_without_area_are_skipped_and_counted(tmp_path: Path, suffix: str) -> None:
    data = read_manifest(make_voc(tmp_path, [(1, 1, 20, 30), (5, 5, 5, 20), (9, 30, 12, 20)], suffix))
    assert data.classes == ("dog", "cat") and data.left_out == {"train": 2, "test": 2}
    info = dataset_of(data.test, data.classes, test_mode=True).get_data_info(0)
    # VOC counts pixels from 1, mmdet from 0.
    assert [(item["bbox"], item["bbox_label"]) for item in info["instances"]] == [([0, 0, 19, 29], 1)]
    assert Path(info["img_path"]).is_file() and info["img_path"].endswith(suffix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "yolo"}, "format 'yolo'; allowed: coco; prepare the detection data again"),
        ({"val": None}, "no key val"),
    ],
)
def test_a_broken_manifest_is_one_clear_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    manifest = {**read_json(make_scenes(tmp_path) / "manifest.json"), **change}
    write_json(
        tmp_path / "manifest.json", {key: value for key, value in manifest.items() if value is not None}
    )
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data is not beside the repository")
def test_real_voc_data_with_its_two_degenerate_boxes(tmp_path: Path) -> None:
    classes = ["RBC", "WBC", "Platelets"]
    split = {"train": ["BCCD/trainval"], "val": ["BCCD/test"]}
    settings = SceneData(
        kind="voc", folder=str(BCCD.parent), name="bccd", classes=classes, smallest_side=32, **split
    )
    data = read_manifest(prepare("detection", settings, tmp_path))
    parts = [dataset_of(part, data.classes) for part in (*data.train, data.test)]
    assert sum(len(part) for part in parts) == 364
    assert sum(data.left_out.values()) == 2
    boxes = sum(len(part.get_data_info(i)["instances"]) for part in parts for i in range(len(part)))
    assert boxes == 4888 - 2  # data.md: 4,888 boxes, two of them degenerate


def test_a_subset_has_classes_as_even_as_they_can_be(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 9, "height": 9} for number in range(40)]
    label = [0 if number % 10 else 1 for number in range(40)]  # 36 of the first class, 4 of the second
    annotations = [
        {"id": n, "image_id": n, "category_id": label[n], "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
        for n in range(40)
    ]
    categories = [{"id": 0, "name": "many"}, {"id": 1, "name": "few"}]
    path = tmp_path / "a.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    chosen = balanced_subset(path, 8, 0)
    assert chosen == sorted(chosen) and len(set(chosen)) == 8
    assert [sum(label[place] == c for place in chosen) for c in (0, 1)] == [4, 4]
    assert balanced_subset(path, 8, 0) == chosen != balanced_subset(path, 8, 1)
    assert balanced_subset(path, 99, 0) == list(range(40))
