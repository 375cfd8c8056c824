"""The tree photographs: a tiny wheel of the same structure, and the real one where the network gives it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from downstream.detection.data import read_manifest as read_detection
from pipelines.datasets import fetch, trees
from pipelines.datasets.coco import Box
from pipelines.datasets.settings import SceneData, TreeTiles
from pipelines.prepare import prepare
from search.errors import InputError
from search.manifest import read_manifest

TILES = TreeTiles(
    size=64, train_stride=32, val_stride=64, smallest_part=0.5, train=["OSBS_029"], val=["SOAP_061"]
)
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
FIXTURE = {
    "OSBS_029": ((100, 80), [("Tree", 10, 10, 30, 30), ("Tree", 60, 20, 70, 40)]),
    "SOAP_061": ((70, 64), [("Alive", 1, 2, 21, 12), ("Dead", 50, 50, 70, 64)]),
}


def files() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    made: dict[str, bytes] = {}
    for name, ((width, height), boxes) in FIXTURE.items():
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(stream, "png")
        made[f"{name}.png"] = stream.getvalue()
        objects = "".join(OBJECT.format(*box) for box in boxes)
        made[f"{name}.xml"] = f"<annotation>{objects}</annotation>".encode()
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two photographs of the fixture, whose checksums the module then expects."""
    place = tmp_path / "photographs"
    place.mkdir()
    contents = files()
    for name, content in contents.items():
        (place / name).write_bytes(content)
    sums = {
        name: tuple(hashlib.sha256(contents[f"{name}{suffix}"]).hexdigest() for suffix in (".png", ".xml"))
        for name in FIXTURE
    }
    monkeypatch.setattr(trees, "FILES", sums)
    return place


def settings(folder: Path, **changes: object) -> SceneData:
    return SceneData(kind="deepforest-trees", folder=str(folder), tiles=TILES.model_copy(update=changes))


def boxes(prepared: Path, split: str) -> dict[str, list[list[int]]]:
    """The boxes of every tile by its file name."""
    coco = json.loads((prepared / "annotations" / f"{split}.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[list[int]]] = {name: [] for name in names.values()}
    for annotation in coco["annotations"]:
        assert annotation["category_id"] == 1
        found[names[annotation["image_id"]]].append(annotation["bbox"])
    return found


def test_tiles_hold_their_part_of_the_photograph_and_its_boxes(folder: Path, tmp_path: Path) -> None:
    prepared = prepare("detection", settings(folder), tmp_path)
    # 100 x 80 with tiles of 64 every 32: columns 0, 32 and the last moved back to 36, rows 0 and 16.
    assert boxes(prepared, "train") == {
        "OSBS_029_0000_0000.png": [[10, 10, 20, 20]],  # 4 of 10 columns of the second tree: too little
        "OSBS_029_0032_0000.png": [[28, 20, 10, 20]],
        "OSBS_029_0036_0000.png": [[24, 20, 10, 20]],
        "OSBS_029_0000_0016.png": [[10, 0, 20, 14]],
        "OSBS_029_0032_0016.png": [[28, 4, 10, 20]],
        "OSBS_029_0036_0016.png": [[24, 4, 10, 20]],
    }
    with (
        Image.open(folder / "OSBS_029.png") as whole,
        Image.open(prepared / "images/train/OSBS_029_0036_0016.png") as tile,
    ):
        np.testing.assert_array_equal(np.asarray(tile), np.asarray(whole)[16:80, 36:100])
    assert boxes(prepared, "val") == {
        "SOAP_061_0000_0000.png": [[1, 2, 20, 10], [50, 50, 14, 14]],
        "SOAP_061_0006_0000.png": [[0, 2, 15, 10], [44, 50, 20, 14]],
    }


def test_the_manifest_says_what_the_data_is(folder: Path, tmp_path: Path) -> None:
    prepared = prepare("detection", settings(folder), tmp_path)
    manifest = read_manifest(prepared)
    assert manifest["stand_in"] is False
    assert manifest["note"].startswith("real data")
    assert trees.WHEEL.sha256 in manifest["source"]
    assert manifest["licence"].startswith("MIT")
    assert manifest["counts"] == {
        "classes": 1,
        "train_images": 6,
        "train_boxes": 6,
        "train_photos": 1,
        "train_trees": 2,
        "val_images": 2,
        "val_boxes": 4,
        "val_photos": 1,
        "val_trees": 2,
    }
    data = read_detection(prepared)
    assert data.classes == ("tree",)
    assert data.test.annotations == prepared / "annotations/val.json"


def test_the_wheel_and_its_files_give_the_same(folder: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / trees.WHEEL.name, "w") as archive:
        for name, content in files().items():
            archive.writestr(f"{trees.INSIDE}/{name}", content)
    hashes = {read_manifest(prepare("detection", settings(f), tmp_path))["sha256"] for f in (folder, wheels)}
    assert len(hashes) == 1
    other = read_manifest(prepare("detection", settings(folder, train_stride=64), tmp_path))
    assert other["sha256"] not in hashes


def test_files_that_are_missing_or_changed(folder: Path, tmp_path: Path) -> None:
    image = folder / "SOAP_061.png"
    image.write_bytes(image.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"SOAP_061\.png has sha256 \w{64}, expected \w{64}"):
        prepare("detection", settings(folder), tmp_path)
    (folder / "OSBS_029.xml").unlink()
    with pytest.raises(InputError, match=r"OSBS_029\.xml is missing in it"):
        prepare("detection", settings(folder), tmp_path)
    assert not (tmp_path / "detection").exists()


def test_a_wheel_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / trees.WHEEL.name).write_bytes(b"half")
    with pytest.raises(InputError, match="half-downloaded archive: 4 of 20639595 bytes"):
        trees.obtain(str(tmp_path), ["OSBS_029"])


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    message = (
        r"the tree photographs cannot be fetched: pip failed: .*; or set data\.detection\.folder in params"
    )
    with pytest.raises(InputError, match=message):
        trees.obtain(None, ["OSBS_029"])


def test_tiles_larger_than_a_photograph(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tiles of 72 pixels, but SOAP_061 has 70 x 64"):
        prepare("detection", settings(folder, size=72), tmp_path)


@pytest.mark.parametrize(
    ("edge", "size", "stride", "starts"),
    [(64, 64, 32, [0]), (128, 64, 64, [0, 64]), (129, 64, 64, [0, 64, 65]), (100, 64, 20, [0, 20, 36])],
)
def test_tiles_cover_the_photograph_without_a_double(
    edge: int, size: int, stride: int, starts: list[int]
) -> None:
    found = list(trees.tiles(np.empty((size, edge, 3), np.uint8), "x", size, stride))
    assert found == [(x, 0) for x in starts]


def test_a_box_cut_at_the_edge_stays_if_enough_of_it_does() -> None:
    box = Box(50, 10, 20, 10, 0)
    assert trees.cut([box], 0, 0, 64, 0.7) == [Box(50, 10, 14, 10, 0)]
    assert trees.cut([box], 0, 0, 64, 0.71) == []
    assert trees.cut([box], 64, 0, 64, 0.3) == [Box(0, 10, 6, 10, 0)]
    assert trees.cut([box], 70, 0, 64, 0.01) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": ["OSBS_029"]}, "OSBS_029 stands twice in train and val"),
        ({"val_stride": 65}, "must not exceed size"),
        ({"train": ["OSBS_030"]}, "OSBS_029"),
        ({"size": 401}, "400"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TreeTiles.model_validate(TILES.model_dump() | changes)
    with pytest.raises(ValidationError, match="kind 'deepforest-trees' needs tiles"):
        SceneData.model_validate({"kind": "deepforest-trees"})


@pytest.mark.network
def test_the_real_photographs() -> None:
    if not (fetch.cache_folder() / trees.WHEEL.name).exists():
        try:
            fetch.cached(trees.WHEEL, lambda part: fetch.pip_download(trees.PACKAGE, part))
        except fetch.Unreachable as error:
            pytest.skip(f"the wheel with the tree photographs cannot be fetched: {error}")
    photos = trees.obtain(None, list(trees.FILES))
    assert {name: len(boxes) for name, (_, boxes) in photos.items()} == {
        "2019_YELL_2_528000_4978000_image_crop2": 574,
        "2019_YELL_2_541000_4977000_image_crop": 279,
        "OSBS_029": 61,
        "SOAP_061": 37,
    }
    for pixels, boxes_found in photos.values():
        height, width = pixels.shape[:2]
        for box in boxes_found:
            assert min(box.width, box.height) > 0
            assert max(box.x + box.width - width, box.y + box.height - height) <= 0
