"""The layout checker: every kind of wrong folder gets its own message."""

from __future__ import annotations

from pathlib import Path

import pytest

from downstream.reid import layout
from downstream.reid.layout import GALLERY, QUERY, TRAIN, parse
from search.errors import InputError

GOOD = {
    TRAIN: ["0001_c1s1_000001_00.png", "0001_c2s1_000002_00.png", "0002_c1s1_000003_00.jpg"],
    GALLERY: ["0003_c2s1_000004_00.png", "-1_c1s1_000005_00.png", "0000_c1s1_000006_00.png"],
    QUERY: ["0003_c1s1_000007_00.png"],
}


def make(root: Path, **changes: list[str]) -> Path:
    for split, names in {**GOOD, **changes}.items():
        (root / split).mkdir(parents=True)
        for name in names:
            (root / split / name).touch()
    return root


def problem(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        layout.check(layout.read(root), where=root)
    return str(caught.value).replace(str(root), "ROOT")


def test_a_good_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    (make(tmp_path) / TRAIN / "Thumbs.db").touch()
    splits = layout.read(tmp_path)
    layout.check(splits, where=tmp_path)
    assert [(p.pid, p.camera) for p in splits.train] == [(1, 1), (1, 2), (2, 1)]
    assert [p.pid for p in splits.gallery] == [0, 3]
    assert splits.left_out["gallery"] == {"junk pictures (identity -1)": 1}
    assert splits.left_out["train"] == {"files with other endings": 1}


@pytest.mark.parametrize(
    ("name", "pid", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),  # Market-1501
        ("-1_c6s4_113116_02.jpg", -1, 6),  # Market-1501, junk
        ("0005_c2_f0046985.jpg", 5, 2),  # the naming of DukeMTMC-reID and of many after it
        ("12345_c17s1_000001_00.png", 12345, 17),  # more identities and cameras than Market-1501 has
        ("7_c3.png", 7, 3),
        ("1488_c1s6_023021_00.jpg.jpg", 1488, 1),  # Market-1501's own double ending
        ("0001_c1s1_000001_00.jpeg", 1, 1),
        ("0001_c1s1_000001_00.JPG", 1, 1),
    ],
)
def test_names(name: str, pid: int, camera: int) -> None:
    picture = parse(Path(name))
    assert (picture.pid, picture.camera) == (pid, camera)


@pytest.mark.parametrize(
    "name",
    ["face.png", "0001.png", "0001_c1s1_00.jpg.jpg.jpg", "-2_c1s1_000001_00.png", "0001_cAs1_1_00.png"],
)
def test_a_wrong_file_name(tmp_path: Path, name: str) -> None:
    make(tmp_path, **{GALLERY: [*GOOD[GALLERY], name]})
    assert problem(tmp_path) == (
        f"ROOT/bounding_box_test/{name}: the file name {name!r} is not in Market-1501's manner; "
        f"allowed: {layout.NAMING}"
    )


def test_camera_zero(tmp_path: Path) -> None:
    make(tmp_path, **{QUERY: ["0003_c0s1_000007_00.png"]})
    assert problem(tmp_path).startswith("ROOT/query/0003_c0s1_000007_00.png: cameras are counted from 1")


def test_a_query_identity_without_another_camera(tmp_path: Path) -> None:
    make(tmp_path, **{QUERY: ["0003_c2s1_000007_00.png"]})
    assert problem(tmp_path) == (
        "ROOT/query/0003_c2s1_000007_00.png: identity 3, seen by camera 2, "
        "has no gallery image of another camera"
    )


def test_several_lost_queries_are_named(tmp_path: Path) -> None:
    names = [f"{pid:04d}_c1s1_000007_00.png" for pid in (3, 4, 5)]
    make(tmp_path, **{QUERY: names})
    assert problem(tmp_path) == (
        "ROOT/query/0004_c1s1_000007_00.png: identity 4, seen by camera 1, "
        "has no gallery image of another camera (the same for identity 5)"
    )


@pytest.mark.parametrize("split", [TRAIN, GALLERY, QUERY])
def test_an_empty_split(tmp_path: Path, split: str) -> None:
    make(tmp_path, **{split: []})
    assert problem(tmp_path).startswith(
        f"ROOT/{split}: an empty split: no picture in this folder; allowed: .jpg"
    )


@pytest.mark.parametrize("split", [TRAIN, GALLERY, QUERY])
def test_a_missing_split(tmp_path: Path, split: str) -> None:
    (make(tmp_path, **{split: []}) / split).rmdir()
    assert problem(tmp_path).startswith(f"ROOT/{split}: no such folder")


def test_a_missing_folder(tmp_path: Path) -> None:
    assert problem(tmp_path / "nowhere").startswith("ROOT: no such folder")


@pytest.mark.parametrize("split", [TRAIN, QUERY])
def test_junk_outside_the_gallery(tmp_path: Path, split: str) -> None:
    make(tmp_path, **{split: ["0000_c1s1_000009_00.png"]})
    assert problem(tmp_path) == (
        f"ROOT/{split}/0000_c1s1_000009_00.png: identities -1 and 0 belong into the gallery only"
    )


def test_an_identity_in_training_and_test(tmp_path: Path) -> None:
    make(tmp_path, **{TRAIN: ["0003_c1s1_000001_00.png", "0001_c1s1_000001_00.png"]})
    assert problem(tmp_path) == "ROOT: identity 3 is in both bounding_box_train and query"
