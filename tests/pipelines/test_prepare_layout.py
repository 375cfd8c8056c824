from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.settings import ImageFolderData, ReidData, SceneData
from pipelines.prepare import prepare
from search.errors import InputError
from search.files import read_json
from search.manifest import read_manifest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


def shared(name: str) -> str:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the development data set {name} is not beside the repository")
    return str(SHARED / name)


# ---- class folders


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            picture(tmp_path / "user" / split / name / "a.JPEG")
    return tmp_path / "user"


def folder_data(folder: Path | str, classes: int = 2, **more: Any) -> ImageFolderData:
    return ImageFolderData(kind="folder", folder=str(folder), name="insects", classes=classes, **more)


def test_class_folders_are_described_in_place(classes: Path, tmp_path: Path) -> None:
    folder = prepare("imagenet", folder_data(classes), tmp_path / "data")
    manifest = read_manifest(folder)
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert manifest["root"] == str(classes)
    assert manifest["classes"] == ["ant", "bee"]
    assert (manifest["name"], manifest["stand_in"]) == ("insects", False)
    assert manifest["counts"] == {"classes": 2, "train_images": 2, "val_images": 2}
    picture(classes / "train" / "ant" / "b.png")
    assert (
        read_manifest(prepare("imagenet", folder_data(classes), tmp_path / "data"))["sha256"]
        != manifest["sha256"]
    )


def test_class_folder_messages(classes: Path, tmp_path: Path) -> None:
    def refused(message: str, count: int = 2, folder: Path = classes) -> None:
        with pytest.raises(InputError, match=message):
            prepare("imagenet", folder_data(folder, count), tmp_path / "data")

    refused(r"gone: no such folder; set data\.imagenet\.folder in params\.yaml", folder=classes / "gone")
    refused(r"train: 2 class folders; allowed: 1000", count=1000)
    (classes / "val" / "bee" / "a.JPEG").rename(classes / "val" / "bee" / "a.txt")
    refused(r"val/bee: a class without pictures; allowed: \.jpg")
    (classes / "val" / "bee" / "b.jpg").touch()
    refused(r"val/bee/b\.jpg: an empty file")
    (classes / "val" / "bee").rename(classes / "val" / "wasp")
    refused(r"do not have the same classes: only in train: bee; only in val: wasp")
    (classes / "val").rename(classes / "validation")
    refused(
        r"no folder val/ in it; allowed: train/<class>/ and val/<class>/; .* sort them into class folders"
    )
    assert not (tmp_path / "data").exists()


def odd(folder: Path) -> None:
    """Beside the good pictures: one greyscale, one CMYK, one with a palette, a truncated one, one of text."""
    Image.new("L", (40, 30)).save(folder / "train" / "ant" / "grey.jpg")
    Image.new("CMYK", (40, 30)).save(folder / "train" / "bee" / "print.jpg")
    Image.new("P", (40, 30)).save(folder / "val" / "bee" / "palette.png")
    whole = folder / "train" / "bee" / "noise.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    whole.write_bytes(whole.read_bytes()[:900])
    (folder / "val" / "ant" / "text.jpg").write_text("no picture")


def test_odd_pictures_are_counted_and_damaged_ones_left_out(classes: Path, tmp_path: Path) -> None:
    odd(classes)
    before = prepared(classes, tmp_path, damaged="skip")  # a file's end shows that it is truncated
    assert before["skipped"] == {"train": ["bee/noise.jpg"], "val": ["ant/text.jpg"]}
    manifest = prepared(classes, tmp_path, damaged="skip", verify="decode")
    assert manifest["pictures"] == {"greyscale": 1, "cmyk": 1, "other_modes": 1, "damaged": 2}
    assert manifest["skipped"] == {"train": ["bee/noise.jpg"], "val": ["ant/text.jpg"]}
    assert manifest["empty_classes"] == []
    assert manifest["counts"] == {"classes": 2, "train_images": 4, "val_images": 3}
    assert manifest["sha256"] == before["sha256"]


def prepared(folder: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return read_manifest(prepare("imagenet", folder_data(folder, **more), tmp_path / "data"))


def test_damaged_pictures_stop_unless_told_otherwise(classes: Path, tmp_path: Path) -> None:
    odd(classes)
    with pytest.raises(InputError, match=r"bee/noise\.jpg: cannot be read as a picture .*damaged to skip"):
        prepared(classes, tmp_path)
    with pytest.raises(InputError, match=r"train/bee/noise\.jpg: cannot be read .*truncated"):
        prepared(classes, tmp_path, verify="decode")
    assert not (tmp_path / "data").exists()


def test_a_class_without_a_usable_picture_is_left_out(classes: Path, tmp_path: Path) -> None:
    (classes / "val" / "bee" / "a.JPEG").write_text("no picture")
    manifest = prepared(classes, tmp_path, damaged="skip")
    assert manifest["classes"] == ["ant"] and manifest["empty_classes"] == ["bee"]
    assert manifest["counts"] == {"classes": 1, "train_images": 1, "val_images": 1}
    (classes / "train" / "ant" / "a.JPEG").unlink()
    with pytest.raises(InputError, match="no class has a picture in both"):
        prepared(classes, tmp_path, damaged="skip")


def test_caltech101(tmp_path: Path) -> None:
    settings = folder_data(shared("caltech101_s80"), classes=99)
    counts = read_manifest(prepare("imagenet", settings, tmp_path))["counts"]
    assert counts == {"classes": 99, "train_images": 4915, "val_images": 1183}


# ---- COCO


def coco_data(folder: Path | str, **changes: object) -> SceneData:
    values: dict = {"train": ["train.json", "train"], "val": ["val.json", "val"], "smallest_side": 30}
    return SceneData.model_validate(
        {"kind": "coco", "folder": str(folder), "name": "mine", **values, **changes}
    )


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        picture(tmp_path / "user" / split / "1.jpg")
        write_coco(tmp_path / "user", split)
    return tmp_path / "user"


def write_coco(folder: Path, split: str, image: dict | None = None, **annotation: object) -> None:
    content = {
        "images": [{"id": 7, "file_name": "1.jpg", "width": 40, "height": 30} | (image or {})],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40, 30]} | annotation],
        "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
    }
    (folder / f"{split}.json").write_text(json.dumps(content))


def test_coco_is_normalised_beside_its_pictures(coco: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare("detection", coco_data(coco), tmp_path / "data"))
    assert manifest["format"] == "coco"
    assert manifest["classes"] == ["cat", "dog"]
    assert manifest["train"] == {"annotations": "annotations/train.json", "images": "train"}
    assert manifest["counts"]["val_boxes"] == 1 and manifest["counts"]["val_boxes_without_area"] == 0
    normalised = read_json(tmp_path / "data" / "detection" / "annotations" / "val.json")
    assert normalised == {
        "images": [{"id": 7, "file_name": "1.jpg", "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0,
             "difficult": 0}
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("image", "annotation", "message"),
    [
        (
            {},
            {"bbox": [10, 0, 35, 30]},
            r"train\.json: annotation 1: box \(10, 0, 45, 30\) leaves .* of 40 x 30",
        ),
        ({}, {"bbox": [1, 2, 3]}, r"annotation 1: bbox \[1, 2, 3\] is not \[x, y, width, height\]"),
        ({}, {"image_id": 8}, r"annotation 1: no image has its image_id 8"),
        ({}, {"category_id": 3}, r"annotation 1: no category has its category_id 3"),
        ({"file_name": "2.jpg"}, {}, r"train/2\.jpg: no such picture, though .*train\.json names it"),
    ],
)
def test_coco_messages(image: dict, annotation: dict, message: str, coco: Path, tmp_path: Path) -> None:
    write_coco(coco, "train", image, **annotation)
    with pytest.raises(InputError, match=message):
        prepare("detection", coco_data(coco), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_coco_files_and_classes(coco: Path, tmp_path: Path) -> None:
    def refused(settings: SceneData, message: str) -> None:
        with pytest.raises(InputError, match=message):
            prepare("detection", settings, tmp_path / "data")

    refused(coco_data(coco, classes=["cat", "cow"]), r"no category cow; allowed: cat, dog")
    refused(coco_data(coco, val=["test.json", "val"]), r"test\.json: no such file")
    refused(coco_data(coco, val=["val.json", "test"]), r"test: no such folder, the pictures of val")
    (coco / "val.json").write_text("[]")
    refused(coco_data(coco), r"val\.json: no list 'images' in it")


def test_coco_sets_of_others(tmp_path: Path) -> None:
    aquarium = coco_data(shared("aquarium_416"), val=["valid.json", "valid"])
    manifest = read_manifest(prepare("detection", aquarium, tmp_path))
    counts = manifest["counts"]
    assert (counts["train_images"], counts["val_images"]) == (447, 127)
    assert manifest["left_out"]["train"]["pictures without a box to train on"] == 1
    both = ["instances.json", "images"]
    manifest = read_manifest(
        prepare("detection", coco_data(shared("coco_free"), train=both, val=both), tmp_path)
    )
    counts = manifest["counts"]
    assert (counts["classes"], counts["val_images"], counts["val_boxes"]) == (80, 84, 792)
    assert any("83 of 84 val pictures are train pictures too" in line for line in manifest["said"])


# ---- VOC

XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{xmax}</xmax><ymax>30</ymax></bndbox></object>
</annotation>"""


def voc_data(folder: Path | str, **changes: object) -> SceneData:
    values: dict = {"train": ["VOC2007/trainval"], "val": ["VOC2007/test"], "smallest_side": 30}
    return SceneData.model_validate(
        {"kind": "voc", "folder": str(folder), "name": "VOC", **values, **changes}
    )


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    year = tmp_path / "user" / "VOC2007"
    (year / "ImageSets" / "Main").mkdir(parents=True)
    (year / "Annotations").mkdir()
    for number, split in (("000001", "trainval"), ("000002", "test")):
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{number}\n")
        (year / "Annotations" / f"{number}.xml").write_text(XML.format(name="dog", xmax=40))
        picture(year / "JPEGImages" / f"{number}.jpg")
    return tmp_path / "user"


def test_voc_is_normalised_beside_its_pictures(voc: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare("detection", voc_data(voc), tmp_path / "data"))
    assert (manifest["format"], manifest["source"]) == ("coco", "voc")
    assert len(manifest["classes"]) == 20
    assert manifest["train"] == {"annotations": "annotations/train.json", "images": "."}
    assert manifest["counts"]["train_boxes"] == 1


def test_voc_messages(voc: Path, tmp_path: Path) -> None:
    def refused(message: str, **changes: object) -> None:
        with pytest.raises(InputError, match=message):
            prepare("detection", voc_data(voc, **changes), tmp_path / "data")

    annotation = voc / "VOC2007" / "Annotations" / "000002.xml"
    refused(r"val\.txt: no such split file; allowed: test, trainval", val=["VOC2007/val"])
    refused(r"VOC2012: no such folder", train=["VOC2007/trainval", "VOC2012/trainval"])
    annotation.write_text(XML.format(name="dgo", xmax=40))
    refused(r"000002\.xml: class 'dgo' is not in the list; .*did you mean 'dog'")
    annotation.write_text(XML.format(name="dog", xmax=60))
    refused(r"000002\.xml: box \(1, 1, 60, 30\) leaves its picture of 40 x 30")
    annotation.write_text(XML.format(name="dog", xmax="wide"))
    refused(r"000002\.xml: bndbox/xmax is 'wide', not a number")
    annotation.write_text("<annotation>")
    refused(r"000002\.xml: not valid XML")
    annotation.unlink()
    refused(r"000002\.xml: no such annotation, though its split names it")
    (voc / "VOC2007" / "JPEGImages" / "000001.jpg").unlink()
    refused(r"000001\.jpg: no such picture")
    assert not (tmp_path / "data").exists()


def test_bccd_has_two_boxes_without_area(tmp_path: Path) -> None:
    classes = ["RBC", "WBC", "Platelets"]
    settings = voc_data(shared("bccd"), train=["BCCD/trainval"], val=["BCCD/test"], classes=classes)
    counts = read_manifest(prepare("detection", settings, tmp_path))["counts"]
    assert counts["train_images"] + counts["val_images"] == 364
    assert counts["train_boxes"] + counts["val_boxes"] == 4888 - 2
    assert counts["train_boxes_without_area"] + counts["val_boxes_without_area"] == 2


# ---- re-identification


@pytest.fixture
def market(tmp_path: Path) -> Path:
    for split, names in (
        ("bounding_box_train", ("0001_c1s1_000001_00.jpg", "0002_c2s1_000001_00.jpg")),
        ("query", ("0003_c1s1_000001_00.jpg",)),
        ("bounding_box_test", ("0003_c2s1_000001_00.jpg", "-1_c2s1_000001_00.jpg")),
    ):
        for name in names:
            picture(tmp_path / "user" / split / name)
    return tmp_path / "user"


def reid_data(folder: Path, kind: str = "custom") -> ReidData:
    return ReidData.model_validate({"kind": kind, "folder": str(folder), "name": "mine"})


@pytest.mark.parametrize("kind", ["custom", "market1501"])
def test_market_folders_are_described_in_place(kind: str, market: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare("reid", reid_data(market, kind), tmp_path / "data"))
    assert manifest["layout"] == {"custom": "folder", "market1501": "market1501"}[kind]
    assert manifest["root"] == str(market)
    assert manifest["counts"]["train_identities"] == 2
    assert manifest["counts"]["query_images"] == 1


def test_market_messages(market: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            prepare("reid", reid_data(market), tmp_path / "data")

    gallery = market / "bounding_box_test"
    (gallery / "0003_c2s1_000001_00.jpg").rename(gallery / "0003_c1s1_000001_00.jpg")
    (gallery / "0009_c2s1_000001_00.jpg").write_bytes((gallery / "0003_c1s1_000001_00.jpg").read_bytes())
    refused(r"identity 3, seen by camera 1, has no gallery image of another camera")
    (gallery / "0003_c1s1_000001_00.jpg").rename(gallery / "face.jpg")
    refused(r"the file name 'face\.jpg' is not in Market-1501's manner")
    for path in gallery.iterdir():
        path.unlink()
    refused(r"bounding_box_test: an empty split")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", ["cuhk03", "msmt17"])
def test_an_archive_of_another_set_is_refused(kind: str, market: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"not the layout of {kind}"):
        prepare("reid", reid_data(market, kind), tmp_path / "data")
