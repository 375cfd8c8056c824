"""Re-identification data as people have it: endings, litter, layouts, broken pictures, one camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.settings import ReidData
from pipelines.prepare import prepare
from search.errors import InputError
from search.manifest import read_manifest

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"


def picture(path: Path, seed: int = 0, **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def market(root: Path, suffix: str = ".jpg", **save: Any) -> Path:
    """Two identities to train on and two to test, seen by cameras 1 and 2."""
    seed = 0
    for pid in (1, 2, 3, 4):
        for number in range(3):
            split = TRAIN if pid < 3 else QUERY if number == 0 else GALLERY
            seed += 1
            name = f"{pid:04d}_c{1 + number % 2}s1_{number:06d}_00{suffix}"
            picture(root / split / name, seed, **save)
    return root


def prepared(root: Path, tmp_path: Path, kind: str = "custom") -> dict[str, Any]:
    settings = ReidData.model_validate({"kind": kind, "folder": str(root), "name": "mine"})
    started = time.process_time()
    manifest = read_manifest(prepare("reid", settings, tmp_path / "data"))
    assert time.process_time() - started < 1
    return manifest


def refused(root: Path, tmp_path: Path, *parts: str, kind: str = "custom") -> None:
    with pytest.raises(InputError) as error:
        prepared(root, tmp_path, kind)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert not (tmp_path / "data").exists()


COUNTS = {
    "train_images": 6, "query_images": 2, "gallery_images": 4, "gallery_distractors": 0,
    "train_identities": 2, "test_identities": 2, "cameras": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["custom", "market1501"])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".png", ".jpg.jpg", ".bmp"])
def test_every_ending_in_every_layout_with_these_names(suffix: str, kind: str, tmp_path: Path) -> None:
    save = {"format": "jpeg"} if "jpg" in suffix.lower() else {}
    manifest = prepared(market(tmp_path / "user", suffix, **save), tmp_path, kind)
    assert manifest["counts"] == COUNTS and manifest["said"] == []


def test_the_archive_of_market_1501_one_folder_deeper(tmp_path: Path) -> None:
    market(tmp_path / "user" / "Market-1501-v15.09.15")
    for kind in ("custom", "market1501"):
        assert prepared(tmp_path / "user", tmp_path, kind)["counts"] == COUNTS


def test_litter_is_skipped_and_counted(tmp_path: Path) -> None:
    root = market(tmp_path / "user")
    for name in ("Thumbs.db", ".DS_Store", "._0001_c1s1_000001_00.jpg", "desktop.ini", "readme.txt"):
        (root / TRAIN / name).write_text("x")
    (root / QUERY / ".ipynb_checkpoints").mkdir()
    (root / GALLERY / "old").mkdir()
    manifest = prepared(root, tmp_path)
    assert manifest["counts"] == COUNTS
    assert manifest["left_out"] == {
        "train": {"hidden entries": 2, "files with other endings": 3},
        "query": {"hidden entries": 1},
        "gallery": {"folders": 1},
    }


def test_junk_and_distractors_are_counted(tmp_path: Path) -> None:
    root = market(tmp_path / "user")
    picture(root / GALLERY / "-1_c1s1_000001_00.jpg", 70)
    picture(root / GALLERY / "0000_c1s1_000001_00.jpg", 71)
    manifest = prepared(root, tmp_path)
    assert manifest["counts"] == {**COUNTS, "gallery_images": 5, "gallery_distractors": 1}
    assert manifest["left_out"]["gallery"] == {"junk pictures (identity -1)": 1}


def test_identities_in_folders_of_their_own(tmp_path: Path) -> None:
    root = market(tmp_path / "user")
    for path in list((root / TRAIN).iterdir()):
        (root / TRAIN / path.name[:4]).mkdir(exist_ok=True)
        path.rename(root / TRAIN / path.name[:4] / path.name)
    refused(root, tmp_path, "an empty split", "folders in it (0001, ...) are not searched")


def test_one_camera_alone(tmp_path: Path) -> None:
    root = market(tmp_path / "user")
    for path in list((root / GALLERY).iterdir()):
        path.rename(path.with_name(path.name.replace("_c2", "_c1")))
    refused(root, tmp_path, "of camera 1: no query can have a match", "0001_c1_1.jpg and 0001_c2_1.jpg")


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated"),
        (lambda path: path.write_text("<html>404</html>"), "a web page (HTML)"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: (path.unlink(), path.symlink_to("/nowhere.jpg")), "a link that leads nowhere"),
    ],
)
@pytest.mark.parametrize("split", [TRAIN, QUERY, GALLERY])
def test_a_broken_picture_is_one_line(
    spoil: Callable[[Path], Any], part: str, split: str, tmp_path: Path
) -> None:
    root = market(tmp_path / "user")
    victim = sorted((root / split).iterdir())[-1]
    spoil(victim)
    refused(root, tmp_path, f"{victim}: ", part)


def test_pictures_on_both_sides_are_said(tmp_path: Path) -> None:
    root = market(tmp_path / "user")
    picture(root / QUERY / "0003_c1s1_000000_00.jpg", 1)
    assert any("1 of 2 query pictures are train pictures too" in x for x in prepared(root, tmp_path)["said"])


def msmt17(root: Path, version: str, train: str, test: str) -> Path:
    base = root / version
    for split, folder, cameras in (
        ("train", train, (1, 15)), ("val", train, (1,)), ("query", test, (1,)), ("gallery", test, (12, 15)),
    ):  # fmt: skip
        lines = []
        for pid in (0, 1):
            for number, camera in enumerate(cameras):
                name = f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_{split}_0.jpg"
                picture(base / folder / name, hash((split, pid, number)) % 1000)
                lines.append(f"{name} {pid}\n")
        (base / f"list_{split}.txt").write_text("".join(lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("version", "train", "test"),
    [("MSMT17_V1", "train", "test"), ("MSMT17_V2", "mask_train_v2", "mask_test_v2")],
)
def test_msmt17(version: str, train: str, test: str, tmp_path: Path) -> None:
    root = msmt17(tmp_path / "user", version, train, test)
    (root / "__MACOSX" / version).mkdir(parents=True)
    for given in (root, root / version):
        counts = prepared(given, tmp_path, "msmt17")["counts"]
        assert (counts["train_images"], counts["query_images"], counts["gallery_images"]) == (4, 2, 4)
        assert counts["cameras"] == 3 and counts["train_identities"] == 2
    (root / version / "list_query.txt").write_text("0000/0000_000_01_x.jpg\n")
    with pytest.raises(InputError, match=r"list_query\.txt: the line .* is not a picture and its identity"):
        prepared(root, tmp_path, "msmt17")


def test_the_layout_is_found(tmp_path: Path) -> None:
    pytest.importorskip("torchreid", reason="the extra 'reid' is not installed")
    from downstream.reid.data import find_layout

    assert find_layout(market(tmp_path / "a" / "Market-1501-v15.09.15").parent) == "market1501"
    assert find_layout(market(tmp_path / "b")) == "market1501"
    assert find_layout(msmt17(tmp_path / "c", "MSMT17_V2", "mask_train_v2", "mask_test_v2")) == "msmt17"
    with pytest.raises(InputError, match="no known layout; allowed: .*bounding_box_train"):
        find_layout(tmp_path)


def test_pictures_to_embed_are_those_that_are_not_hidden(tmp_path: Path) -> None:
    pytest.importorskip("torchreid", reason="the extra 'reid' is not installed")
    from downstream.reid.export import pictures

    wanted = [picture(tmp_path / name) for name in ("a.jpg", "b/c.JPEG", "b/d.bmp")]
    for name in ("._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "b/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert pictures(tmp_path) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_breaks_after_preparation_is_one_line_from_a_worker_too(
    workers: int, tmp_path: Path
) -> None:
    pytest.importorskip("torchreid", reason="the extra 'reid' is not installed")
    from downstream.reid import loaders
    from downstream.reid.loaders import Source
    from tests.downstream import reid_fixture as fixture

    root = fixture.make(tmp_path)
    for victim in (root / TRAIN).iterdir():
        victim.write_bytes(victim.read_bytes()[:200])
    built = loaders.build(Source("broken", str(root), "folder"), None, fixture.settings(workers=workers))
    with pytest.raises(InputError) as error:
        list(built.manager.train_loader)
    assert str(error.value).startswith(f"{root / TRAIN}/")
    assert ": cannot be read as a picture (" in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_subset_has_identities_as_even_as_can_be_and_the_whole_gallery(tmp_path: Path) -> None:
    pytest.importorskip("torchreid", reason="the extra 'reid' is not installed")
    from downstream.reid import loaders
    from downstream.reid.loaders import Source
    from tests.downstream import reid_fixture as fixture

    source = Source("some", str(fixture.make(tmp_path, train=4, test=4, images=6)), "folder")
    whole = loaders.build(source, None, fixture.settings())
    part = loaders.build(source, None, fixture.settings(train_images=8, test_images=2))
    assert [p.pid for p in part.train.train] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(part.train.train) < set(whole.train.train) and part.identities == 4
    assert len(part.test.query) == 2 and part.test.gallery == whole.test.gallery
    assert len(part.manager.train_loader.dataset.train) == 8
