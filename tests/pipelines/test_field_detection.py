"""Detection data as people have it: each oddity is read, or refused in one line before any training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.settings import SceneData
from pipelines.prepare import prepare
from search.errors import InputError
from search.files import read_json
from search.manifest import read_manifest

WIDTH, HEIGHT = 64, 48
Json = dict[str, Any]
Change = Callable[[str, list[Any]], list[Any]]


def noise(path: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT), **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def coco(root: Path, **changes: Change) -> Path:
    """Two splits of four pictures with one box each, of cat and dog in turn."""
    for split, first in (("train", 0), ("val", 10)):
        for number in range(4):
            noise(root / split / f"{number}.jpg", first + number)
        lists: dict[str, list[Any]] = {
            "images": [
                {"id": 5 + n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(4)
            ],
            "annotations": [
                {"id": 1 + n, "image_id": 5 + n, "category_id": (7, 3)[n % 2], "bbox": [4, 4, 40, 36],
                 "area": 1440, "iscrowd": 0}
                for n in range(4)
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }  # fmt: skip
        for key, change in changes.items():
            lists[key] = change(split, lists[key])
        (root / f"{split}.json").write_text(json.dumps(lists))
    return root


def coco_settings(root: Path, **changes: Any) -> SceneData:
    values = {"train": ["train.json", "train"], "val": ["val.json", "val"], "smallest_side": 32, **changes}
    return SceneData.model_validate({"kind": "coco", "folder": str(root), "name": "mine", **values})


def voc(
    root: Path,
    suffix: str = ".jpg",
    lines: Callable[[Iterable[str]], str] = "\n".join,
    names: Iterable[str] = ("1", "2"),
    extra: str = "<difficult>0</difficult>",
    size: tuple[Any, Any] = (WIDTH, HEIGHT),
    objects: str | None = None,
) -> Path:
    """A year folder with two pictures in trainval and two in test, one dog each."""
    year = root / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>44</xmax><ymax>40</ymax></bndbox>"
    objects = objects or f"<object><name>dog</name>{extra}{box}</object>"
    for split, prefix in (("trainval", "a"), ("test", "b")):
        ids = [f"{prefix}{name}" for name in names]
        (year / "ImageSets/Main" / f"{split}.txt").write_bytes(lines(ids).encode())
        for number, name in enumerate(ids):
            noise(year / "JPEGImages" / f"{name}{suffix}", number + 10 * (prefix == "b"))
            text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}"
            (year / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
    return root


def voc_settings(root: Path, **changes: Any) -> SceneData:
    values = {"train": ["VOC2007/trainval"], "val": ["VOC2007/test"], "classes": ["cat", "dog"], **changes}
    return SceneData.model_validate(
        {"kind": "voc", "folder": str(root), "name": "mine", "smallest_side": 32, **values}
    )


def prepared(settings: SceneData, tmp_path: Path) -> tuple[Json, Json, Json]:
    """The manifest, and what the normalised files of train and val hold; made within a second."""
    started = time.process_time()
    folder = prepare("detection", settings, tmp_path / "data")
    assert time.process_time() - started < 1
    files = (read_json(folder / "annotations" / f"{split}.json") for split in ("train", "val"))
    return read_manifest(folder), *files  # type: ignore[return-value]


def refused(settings: SceneData, tmp_path: Path, *parts: str) -> None:
    """Refused in one line that holds every part, with nothing left behind."""
    with pytest.raises(InputError) as error:
        prepare("detection", settings, tmp_path / "data")
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not (tmp_path / "data").exists()


PLAIN_BOXES = [[4, 4, 40, 36]] * 4


def test_ids_of_any_kind_become_contiguous_in_one_class_order(tmp_path: Path) -> None:
    other_way = lambda split, entries: entries if split == "train" else entries[::-1]  # noqa: E731
    manifest, train, val = prepared(coco_settings(coco(tmp_path / "user", categories=other_way)), tmp_path)
    assert manifest["classes"] == ["cat", "dog"]
    for content in (train, val):
        assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        assert [entry["category_id"] for entry in content["annotations"]] == [1, 2, 1, 2]
        assert [entry["id"] for entry in content["annotations"]] == [1, 2, 3, 4]
        assert [image["id"] for image in content["images"]] == [5, 6, 7, 8]
        assert [entry["bbox"] for entry in content["annotations"]] == PLAIN_BOXES
        assert {entry["area"] for entry in content["annotations"]} == {1440}


def changed(**values: Any) -> Change:
    """Every entry with these values; None removes a key."""
    return lambda split, entries: [
        {key: value for key, value in (entry | values).items() if value is not None} for entry in entries
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": changed(area=None, iscrowd=None)}, "4 areas that are missing or 0"),
        ({"annotations": changed(area=0)}, "4 areas that are missing or 0"),
        ({"annotations": changed(id=None)}, "4 annotation ids that are missing"),
        ({"annotations": changed(id=9)}, "3 annotation ids that are repeated"),
        ({"annotations": changed(iscrowd="0", ignore="")}, None),
        ({"images": changed(width="64", height="48.0")}, None),
        ({"images": changed(width=64.0)}, None),
        ({"images": changed(width=None)}, "4 sizes that the annotations lack"),
        ({"images": changed(width=0, height=0)}, "4 sizes that the annotations lack"),
        ({"images": changed(file_name="0.jpg")}, "3 images with the file name of another"),
        ({"categories": lambda s, c: [{"id": "7", "name": " cat "}, {"id": 3.0, "name": "dog"}]}, None),
        ({"images": lambda s, i: [x | {"id": str(x["id"])} for x in i]}, None),
        ({"annotations": changed(segmentation={"counts": [9], "size": [48, 64]})}, None),
        ({"images": lambda s, i: [x | {"file_name": f".\\{x['file_name']}"} for x in i]}, None),
    ],
)
def test_what_exporters_leave_out_or_write_otherwise_is_made(
    change: dict[str, Change], said: str | None, tmp_path: Path
) -> None:
    manifest, train, _ = prepared(coco_settings(coco(tmp_path / "user", **change)), tmp_path)
    assert [entry["bbox"] for entry in train["annotations"]] == PLAIN_BOXES
    assert [entry["category_id"] for entry in train["annotations"]] == [1, 2, 1, 2]
    assert [(image["width"], image["height"]) for image in train["images"]] == [(WIDTH, HEIGHT)] * 4
    assert manifest["said"] == ([] if said is None else manifest["said"])
    assert said is None or any(said in line for line in manifest["said"])


def test_a_byte_order_mark_and_names_that_are_numbers(tmp_path: Path) -> None:
    root = coco(tmp_path / "user", categories=lambda s, c: [x | {"name": x["id"]} for x in c])
    for split in ("train", "val"):
        path = root / f"{split}.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert prepared(coco_settings(root), tmp_path)[0]["classes"] == ["7", "3"]


def test_image_ids_that_are_text_are_numbered(tmp_path: Path) -> None:
    root = coco(
        tmp_path / "user",
        images=lambda s, i: [x | {"id": f"p{x['id']}"} for x in i],
        annotations=lambda s, a: [x | {"image_id": f"p{x['image_id']}"} for x in a],
    )
    _, train, _ = prepared(coco_settings(root), tmp_path)
    assert [image["id"] for image in train["images"]] == [1, 2, 3, 4]
    assert [entry["image_id"] for entry in train["annotations"]] == [1, 2, 3, 4]


def test_ordinary_names(tmp_path: Path) -> None:
    names = ("a b.jpg", "für.jpg", "C.JPG", "sub/d.jpg")
    root = coco(
        tmp_path / "user",
        images=lambda s, i: [x | {"file_name": name} for x, name in zip(i, names, strict=True)],
    )
    for split in ("train", "val"):
        (root / split / "sub").mkdir()
        for number, name in enumerate(names):
            (root / split / f"{number}.jpg").rename(root / split / name)
    _, train, _ = prepared(coco_settings(root), tmp_path)
    assert [image["file_name"] for image in train["images"]] == list(names)


def first(**values: Any) -> Change:
    """The first entry of the training list with these values."""
    return lambda split, entries: [
        entry | (values if split == "train" and place == 0 else {}) for place, entry in enumerate(entries)
    ]


@pytest.mark.parametrize(
    ("key", "change", "parts"),
    [
        ("categories", lambda s, c: ["cat", "dog"], ("train.json: category 0 is 'cat'", '{"id": 1')),
        ("categories", first(name="dog"), ("ids 7, 3 have the same name 'dog'",)),
        ("categories", first(id=3), ("two categories have the id 3",)),
        ("images", first(id=6), ("two images have the id 6: 0.jpg, 1.jpg",)),
        ("images", first(width=32), ("is 64 x 48", "says 32 x 48")),
        ("images", first(width="wide"), ("image 5: width is 'wide', not a number",)),
        ("images", first(width=64.5), ("64.5 x 48 is not a whole number of pixels",)),
        ("images", first(file_name=["0.jpg"]), ("image 5: file_name is ['0.jpg']",)),
        ("images", first(file_name="train/0.jpg"), ("no such picture", "relative to the picture folder")),
        ("annotations", first(bbox=[float("nan"), 4, 9, 9]), ("annotation 1: a value of bbox", "nan")),
        ("annotations", first(bbox=[4, 4, float("inf"), 9]), ("annotation 1:", "inf, not a finite number")),
        ("annotations", first(bbox=["4", 4, 9, 9]), ("annotation 1: bbox", "is not [x, y, width, height]")),
        (
            "annotations",
            first(bbox=[30, 4, 40, 9]),
            ("annotation 1: box (30, 4, 70, 13) leaves", "a bbox is [x, y"),
        ),
        ("annotations", first(bbox=None), ("annotation 1 has no 'bbox'",)),
        ("annotations", first(iscrowd="maybe"), ("annotation 1: iscrowd is 'maybe'; allowed: 0, 1",)),
        ("annotations", first(image_id=99), ("annotation 1: no image has its image_id 99",)),
        ("annotations", first(category_id=None), ("annotation 1 has no 'category_id'",)),
        ("annotations", lambda s, a: [7, *a], ("annotation 0 is 7",)),
        ("annotations", lambda s, a: [x | {"iscrowd": 1} for x in a], ("no training picture is left",)),
        ("annotations", lambda s, a: a if s == "train" else [], ("the val split has no box to evaluate",)),
        ("annotations", lambda s, a: [], ("no training picture is left",)),
    ],
)
def test_what_cannot_be_read_in_one_way_alone_is_one_line(
    key: str, change: Change, parts: tuple[str, ...], tmp_path: Path
) -> None:
    refused(coco_settings(coco(tmp_path / "user", **{key: change})), tmp_path, *parts)


def test_an_unused_category_with_the_name_of_another_is_dropped_and_said(tmp_path: Path) -> None:
    root = coco(tmp_path / "user", categories=lambda s, c: [{"id": 0, "name": "cat"}, *c])
    manifest, train, _ = prepared(coco_settings(root), tmp_path)
    assert manifest["classes"] == ["cat", "dog"]
    assert [entry["category_id"] for entry in train["annotations"]] == [1, 2, 1, 2]
    assert any("category 0 has the name 'cat' of another and no box: dropped" in x for x in manifest["said"])


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    odd = [[3, 3, 0, 9], [3, 3, 0.5, 9], [-0.6, 3, 0.5, 9], [64.2, 3, 0.5, 9]]

    def more(split: str, entries: list[Json]) -> list[Json]:
        return [*entries, *({"image_id": 5, "category_id": 7, "bbox": box} for box in odd)]

    manifest, train, _ = prepared(coco_settings(coco(tmp_path / "user", annotations=more)), tmp_path)
    assert len(train["annotations"]) == 4
    assert manifest["left_out"]["train"] == {"boxes below a pixel": 3, "boxes without area": 1}
    assert manifest["counts"]["train_left_out"] == 4
    settings = coco_settings(tmp_path / "user", classes=["dog"])
    manifest, train, val = prepared(settings, tmp_path)
    assert manifest["left_out"]["train"]["boxes of other classes"] == 6
    assert manifest["left_out"]["train"]["pictures without a box to train on"] == 2
    assert (len(train["images"]), len(val["images"])) == (2, 4)  # evaluation keeps empty pictures
    assert {entry["category_id"] for entry in train["annotations"]} == {1}


def test_crowds_are_ignored_regions_and_counted(tmp_path: Path) -> None:
    manifest, train, _ = prepared(coco_settings(coco(tmp_path / "user", annotations=crowd_first)), tmp_path)
    assert [image["id"] for image in train["images"]] == [6, 7, 8]
    assert manifest["counts"]["val_boxes_crowd"] == 1 and manifest["counts"]["val_boxes_difficult"] == 0
    assert manifest["left_out"]["train"]["boxes marked crowd or difficult, of pictures without others"] == 1


def crowd_first(split: str, entries: list[Json]) -> list[Json]:
    return [entry | {"iscrowd": int(place == 0)} for place, entry in enumerate(entries)]


def test_small_training_pictures_and_the_setting_that_drops_them(tmp_path: Path) -> None:
    root = coco(tmp_path / "user", images=changed(height=24), annotations=changed(bbox=[2, 2, 20, 18]))
    for path in root.glob("*/*.jpg"):
        noise(path, 3, (WIDTH, 24))
    refused(coco_settings(root), tmp_path, "no training picture is left", "smallest_side 32 leaves out 4")
    assert prepared(coco_settings(root, smallest_side=24), tmp_path)[0]["counts"]["train_images"] == 4


def test_categories_of_the_test_file_alone(tmp_path: Path) -> None:
    def third(split: str, entries: list[Json]) -> list[Json]:
        return [*entries, {"id": 9, "name": "cow"}] if split == "val" else entries

    assert prepared(coco_settings(coco(tmp_path / "user", categories=third)), tmp_path)
    root = coco(tmp_path / "user", categories=third, annotations=lambda s, a: a if s == "train" else cows(a))
    message = "val.json: annotation 1: the training file has no category 'cow'"
    with pytest.raises(InputError, match=message):
        prepare("detection", coco_settings(root), tmp_path / "data")
    manifest, *_ = prepared(coco_settings(root, classes=["cat", "dog"]), tmp_path)
    assert manifest["left_out"]["val"] == {"boxes of other classes": 1}


def cows(entries: list[Json]) -> list[Json]:
    return [entry | ({"category_id": 9} if place == 0 else {}) for place, entry in enumerate(entries)]


# ---- pictures


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:700]), "truncated"),
        (lambda path: path.write_text("<!DOCTYPE html><html>404</html>"), "a web page (HTML)"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
        (lambda path: path.write_bytes(bytes(900)), "nothing but zero bytes"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: (path.unlink(), path.symlink_to("/nowhere/0.jpg")), "the link leads nowhere"),
    ],
)
def test_a_damaged_picture_is_one_line(spoil: Callable[[Path], Any], part: str, tmp_path: Path) -> None:
    root = coco(tmp_path / "user")
    spoil(root / "val" / "0.jpg")
    refused(coco_settings(root), tmp_path, f"{root}/val/0.jpg: ", part)


WHITE = (36, 4, 10, 10)
"""Where a white square lies on black, in stored pixels."""


def telephone(root: Path, orientation: int, size: tuple[int, int], box: list[int]) -> None:
    """Pictures stored as 64 x 48 with an EXIF orientation, annotated for this size and box."""
    coco(
        root,
        images=changed(width=size[0], height=size[1]),
        annotations=changed(bbox=box, area=box[2] * box[3]),
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in root.glob("*/*.jpg"):
        image = Image.new("RGB", (WIDTH, HEIGHT))
        image.paste((255, 255, 255), (*WHITE[:2], WHITE[0] + WHITE[2], WHITE[1] + WHITE[3]))
        image.save(path, exif=exif, quality=95)


def brightness_in_boxes(folder: Path) -> list[float]:
    """What training sees within the boxes of the test set, through a pipeline that asks for mmcv's loader."""
    pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")
    from downstream.detection.data import read_manifest as read
    from downstream.detection.datasets import CountingCocoDataset

    data = read(folder)
    found = CountingCocoDataset(
        ann_file=str(data.test.annotations),
        data_prefix={"img": f"{data.test.images}/"},
        metainfo={"classes": data.classes},
        pipeline=[{"type": "LoadImageFromFile"}],
        test_mode=True,
    )
    means = []
    for sample in found:
        assert sample["img"].shape[:2] == (sample["height"], sample["width"])
        x1, y1, x2, y2 = map(int, sample["instances"][0]["bbox"])
        means.append(sample["img"][y1:y2, x1:x2].mean())
    return means


@pytest.mark.parametrize("convention", ["stored", "turned"])
def test_boxes_and_pictures_agree_in_both_exif_conventions(convention: str, tmp_path: Path) -> None:
    x, y, width, height = WHITE
    if convention == "stored":
        telephone(tmp_path / "user", 6, (WIDTH, HEIGHT), list(WHITE))
    else:
        telephone(tmp_path / "user", 6, (HEIGHT, WIDTH), [HEIGHT - y - height, x, height, width])
    manifest, train, _ = prepared(coco_settings(tmp_path / "user"), tmp_path)
    assert {image.get("turn", 0) for image in train["images"]} == {int(convention == "turned")}
    assert any(f"boxes in the {convention} picture" in line for line in manifest["said"])
    assert min(brightness_in_boxes(tmp_path / "data" / "detection")) > 230


def test_an_orientation_that_the_size_cannot_tell_is_said(tmp_path: Path) -> None:
    telephone(tmp_path / "user", 3, (WIDTH, HEIGHT), list(WHITE))
    manifest, *_ = prepared(coco_settings(tmp_path / "user"), tmp_path)
    assert any("their size cannot tell" in line for line in manifest["said"])


def test_odd_pictures_have_the_right_colours(tmp_path: Path) -> None:
    grey = [30000, 30001, 0, 65535]
    root = coco(tmp_path / "user", annotations=changed(bbox=[0, 0, WIDTH, HEIGHT]))
    for split in ("train", "val"):
        whole = Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 50))
        whole.quantize(4).save(root / split / "0.jpg", "png")
        whole.convert("CMYK").save(root / split / "1.jpg", "jpeg", quality=95)
        Image.fromarray(np.full((HEIGHT, WIDTH), grey[0], np.uint16)).save(root / split / "2.jpg", "png")
        Image.new("LA", (WIDTH, HEIGHT), (90, 255)).save(root / split / "3.jpg", "webp", lossless=True)
    manifest, *_ = prepared(coco_settings(root), tmp_path)
    assert any("pictures of 16 bits" in line for line in manifest["said"])
    means = brightness_in_boxes(tmp_path / "data" / "detection")
    assert np.allclose(means, [350 / 3, 350 / 3, 30000 // 256, 90], atol=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_after_preparation_is_one_line_from_a_worker_too(
    workers: int, tmp_path: Path
) -> None:
    pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")
    from torch.utils.data import DataLoader

    from downstream.detection.datasets import PreparedDataset

    root = coco(tmp_path / "user")
    prepared(coco_settings(root), tmp_path)
    victim = root / "val" / "2.jpg"
    victim.write_bytes(victim.read_bytes()[:700])
    found = PreparedDataset(
        str(tmp_path / "data" / "detection"), "val", test_mode=True, pipeline=[{"type": "LoadImageFromFile"}]
    )
    with pytest.raises(InputError) as error:
        list(DataLoader(found, batch_size=None, num_workers=workers))
    assert str(error.value).startswith(f"{victim}: cannot be read as a picture (")
    assert "Traceback" not in str(error.value)


def test_pictures_in_both_splits_are_said(tmp_path: Path) -> None:
    root = coco(tmp_path / "user")
    noise(root / "val" / "0.jpg", 0)
    manifest, *_ = prepared(coco_settings(root), tmp_path)
    assert any("1 of 4 val pictures are train pictures too" in line for line in manifest["said"])


def test_changed_pixels_change_the_hash(tmp_path: Path) -> None:
    root = coco(tmp_path / "user")
    before = prepared(coco_settings(root), tmp_path)[0]["sha256"]
    assert prepared(coco_settings(root), tmp_path)[0]["sha256"] == before
    noise(root / "train" / "0.jpg", 77)
    assert prepared(coco_settings(root), tmp_path)[0]["sha256"] != before


# ---- VOC

FORMS: dict[str, dict[str, Any]] = {
    "jpeg": {"suffix": ".jpeg"},
    "upper case": {"suffix": ".JPG"},
    "bmp": {"suffix": ".bmp"},
    "blank lines": {"lines": lambda ids: "".join(f" {name} \n" for name in ids) + "\n\n"},
    "Windows": {"lines": lambda ids: "\ufeff" + "".join(f"{name}\r\n" for name in ids)},
    "one class's file": {"lines": lambda ids: "".join(f"{name} {n - 1:2d}\n" for n, name in enumerate(ids))},
    "with endings": {"lines": lambda ids: "".join(f"{name}.jpg\n" for name in ids)},
    "repeated": {"lines": lambda ids: "".join(f"{name}\n{name}\n" for name in ids)},
    "spaces": {"names": ("bird (1)", "bird 2")},
    "Chinese": {"names": ("图片1", "图片2")},
    "parts": {"extra": "<part><name>head</name><bndbox><xmin>45.7</xmin></bndbox></part>"},
    "empty difficult": {"extra": "<difficult></difficult>"},
    "difficult in words": {"extra": "<difficult>Unspecified</difficult>"},
    "no size": {"size": ("", "")},
    "zero size": {"size": (0, 0)},
    "float size": {"size": ("64.0", "48.0")},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_voc_are_read_alike(form: str, tmp_path: Path) -> None:
    _, plain, _ = prepared(voc_settings(voc(tmp_path / "plain")), tmp_path)
    _, train, val = prepared(voc_settings(voc(tmp_path / "user", **FORMS[form])), tmp_path)
    for content in (train, val):
        assert content["annotations"] == plain["annotations"]
        assert [(image["width"], image["height"]) for image in content["images"]] == [(WIDTH, HEIGHT)] * 2
    assert plain["annotations"][0]["bbox"] == [4, 4, 39, 35]


def test_what_was_made_up_is_said(tmp_path: Path) -> None:
    form = voc(tmp_path / "user", extra="<difficult>Unspecified</difficult>", size=(0, 0))
    manifest, *_ = prepared(voc_settings(form), tmp_path)
    assert "train: 2 difficult that is 'Unspecified': read as 0" in manifest["said"]
    assert "val: 2 sizes that the annotations lack: taken from the picture" in manifest["said"]


def test_difficult_boxes_are_ignored_regions(tmp_path: Path) -> None:
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>44</xmax><ymax>40</ymax></bndbox>"
    objects = f"<object><name>dog</name>{box}</object><object><name>dog</name><difficult>1</difficult>{box}</object>"
    manifest, train, _ = prepared(voc_settings(voc(tmp_path / "user", objects=objects)), tmp_path)
    assert [(e["iscrowd"], e["difficult"]) for e in train["annotations"]] == [(0, 0), (1, 1)] * 2
    assert manifest["counts"]["val_boxes_difficult"] == 2
    refused(
        voc_settings(voc(tmp_path / "all", extra="<difficult>1</difficult>")),
        tmp_path / "other",
        "no training picture is left",
        "marked crowd or difficult",
    )


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ({"objects": "<object><name>dgo</name></object>"}, ("class 'dgo' is not in the list", "'dog'")),
        ({"objects": "<object><name>cow</name></object>"}, ("class 'cow'", "set data.detection.classes")),
        ({"objects": "<object><name>dog</name></object>"}, ("bndbox/xmin is None, not a number",)),
        ({"size": ("x", 48)}, ("size/width is 'x', not a number",)),
        ({"size": (32, 24)}, ("is 64 x 48", "says 32 x 24")),
    ],
)
def test_voc_in_one_line(form: dict[str, Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    refused(voc_settings(voc(tmp_path / "user", **form)), tmp_path, *parts)


@pytest.mark.parametrize(("encoding", "called"), [("gbk", "GBK"), ("utf-16", "UTF-16"), ("shift_jis", "GBK")])
def test_a_split_file_in_another_encoding(encoding: str, called: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "user", names=("数据1", "数据2"))
    path = root / "VOC2007/ImageSets/Main/trainval.txt"
    path.write_bytes(path.read_text().replace("据", "字").encode(encoding))
    refused(voc_settings(root), tmp_path, "trainval.txt: is not UTF-8 but perhaps", called)


def test_an_annotation_in_an_encoding_that_the_parser_lacks(tmp_path: Path) -> None:
    root = voc(tmp_path / "user")
    path = root / "VOC2007/Annotations/a1.xml"
    path.write_text(f'<?xml version="1.0" encoding="GB2312"?>{path.read_text()}')
    refused(voc_settings(root), tmp_path, "a1.xml: cannot be read", "save it as UTF-8")
