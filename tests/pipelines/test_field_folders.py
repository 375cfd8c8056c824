"""Class folders as people have them: litter, links, other formats, names, Tiny ImageNet as downloaded."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.settings import ImageFolderData
from pipelines.prepare import prepare
from search.errors import InputError
from search.image_folder import balanced_samples, decode, list_samples
from search.manifest import read_manifest


def picture(path: Path, seed: int = 0, **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four training and two validation pictures."""
    for split, count, first in (("train", 4, 0), ("val", 2, 50)):
        for k, name in enumerate(("ant", "bee")):
            for i in range(count):
                picture(tmp_path / "user" / split / name / f"{i}.JPEG", first + 10 * k + i)
    return tmp_path / "user"


def prepared(root: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    settings = ImageFolderData(kind="folder", folder=str(root), name="insects", classes=2, **more)
    started = time.process_time()
    manifest = read_manifest(prepare("imagenet", settings, tmp_path / "data"))
    assert time.process_time() - started < 1
    return manifest


def refused(root: Path, tmp_path: Path, *parts: str, **more: Any) -> None:
    with pytest.raises(InputError) as error:
        prepared(root, tmp_path, **more)
    assert "\n" not in str(error.value)
    str(error.value).encode()  # can be printed
    for part in parts:
        assert part in str(error.value)
    assert not (tmp_path / "data").exists()


def test_litter_is_counted_and_what_may_have_been_meant_is_said(root: Path, tmp_path: Path) -> None:
    plain = prepared(root, tmp_path)
    assert plain["left_out"] == {"train": {}, "val": {}} and plain["said"] == []
    ant = root / "train" / "ant"
    picture(root / "train" / ".ipynb_checkpoints" / "x.jpg")
    for name in (".DS_Store", "._0.jpg", "Thumbs.db", "README.txt"):
        (ant / name).write_text("x")
    picture(ant / "extra.tif")
    picture(root / "train" / "loose.png")
    picture(ant / "more" / "9.jpg")
    manifest = prepared(root, tmp_path)
    assert manifest["counts"] == plain["counts"] and manifest["sha256"] == plain["sha256"]
    assert manifest["left_out"]["train"] == {
        "hidden entries": 3,
        "files with other endings": 3,
        "folders in class folders": 1,
        "pictures outside class folders": 1,
    }
    assert any("pictures outside class folders left out: train/loose.png" in x for x in manifest["said"])
    assert any("train/ant/extra.tif" in line for line in manifest["said"])
    assert any("train/ant/more" in line for line in manifest["said"])


def test_links_that_lead_nowhere(root: Path, tmp_path: Path) -> None:
    for i in range(3):
        path = root / "train" / "bee" / f"{i}.JPEG"
        path.unlink()
        path.symlink_to(f"/nowhere/{i}.JPEG")
    refused(root, tmp_path, "train/bee/0.JPEG: a link that leads nowhere", "damaged to skip")
    manifest = prepared(root, tmp_path, damaged="skip")
    assert manifest["skipped"]["train"] == [f"bee/{i}.JPEG" for i in range(3)]
    assert manifest["pictures"]["damaged"] == 3
    assert manifest["left_out"]["train"] == {"links that lead nowhere": 3}
    assert manifest["counts"]["train_images"] == 5


def test_a_name_that_is_not_utf8(root: Path, tmp_path: Path) -> None:
    os.rename(root / "train/ant/0.JPEG", os.fsencode(root / "train/ant") + b"/caf\xe9.jpg")
    refused(root, tmp_path, r"the file name 'caf\xe9.jpg' is not UTF-8", "rename it")


@pytest.mark.parametrize("split", ["train", "val"])
def test_tiny_imagenet_as_downloaded(split: str, root: Path, tmp_path: Path) -> None:
    if split == "train":
        for name in ("ant", "bee"):
            (root / "train" / name / "images").mkdir()
            for path in (root / "train" / name).glob("*.JPEG"):
                path.rename(path.parent / "images" / path.name)
        refused(root, tmp_path, "train/ant: a class without pictures", "its 4 pictures are in images/", "mv ")
    else:
        (root / "val" / "ant").rename(root / "val" / "images")
        (root / "val" / "val_annotations.txt").write_text("0.JPEG\tant\t0\t0\t1\t1\n")
        refused(root, tmp_path, "Tiny ImageNet's as downloaded", "two steps: move", "val_annotations.txt")


def test_the_layout_one_folder_deeper(root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "inner")
    root.mkdir()
    (tmp_path / "inner").rename(root / "insects")
    refused(root, tmp_path, "no folder train/ in it", f"set data.imagenet.folder to {root}/insects")


def test_a_folder_that_is_training_and_validation(root: Path, tmp_path: Path) -> None:
    picture(root / "val" / "ant" / "0.JPEG", 0)
    for verify in ("quick", "decode"):
        manifest = prepared(root, tmp_path, verify=verify)
        assert any("1 of 4 val pictures are train pictures too" in line for line in manifest["said"])


@pytest.mark.parametrize("verify", ["quick", "decode"])
@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda path: path.write_text("<html>404</html>"), "a web page (HTML)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "truncated"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    ],
)
def test_damaged_pictures_by_what_they_are(
    spoil: Any, part: str, verify: str, root: Path, tmp_path: Path
) -> None:
    spoil(root / "val" / "bee" / "1.JPEG")
    refused(root, tmp_path, "val/bee/1.JPEG: ", part, verify=verify)


def forms(folder: Path) -> dict[str, Path]:
    """Files that carry a JPEG's name: ImageNet's own oddities, and two more."""
    whole = Image.open(picture(folder / "rgb.jpg", 3)).convert("RGB")
    whole.save(folder / "png.jpg", "png")
    whole.convert("CMYK").save(folder / "cmyk.jpg", "jpeg")
    whole.convert("L").save(folder / "grey.jpg", "jpeg")
    whole.save(folder / "progressive.jpg", "jpeg", progressive=True)
    Image.fromarray(np.full((24, 32), 30000, np.uint16)).save(folder / "deep.jpg", "png")
    whole.save(
        folder / "turned.jpg", "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    )
    return {path.stem: path for path in folder.glob("*.jpg")}


def test_both_decoders_see_the_same_pixels(tmp_path: Path) -> None:
    found = forms(tmp_path)
    assert len(found) == 7
    for name, path in found.items():
        one = np.asarray(decode(str(path), "pil"))
        other = decode(str(path), "torchvision")
        other = np.moveaxis(other.numpy(), 0, 2) if hasattr(other, "numpy") else np.asarray(other)
        assert one.shape == (24, 32, 3), name
        assert np.abs(one.astype(int) - other).max() <= 2, name  # the two libraries' own last bits


@pytest.mark.parametrize("cut", [1, 2, 3, 40, 300])
def test_both_decoders_agree_on_what_is_a_picture(cut: int, tmp_path: Path) -> None:
    path = picture(tmp_path / "x.jpg", 5)
    path.write_bytes(path.read_bytes()[:-cut])
    answers = []
    for decoder in ("pil", "torchvision"):
        try:
            decode(str(path), decoder)
            answers.append("read")
        except InputError as error:
            answers.append(str(error))
    assert answers[0] == answers[1]


def test_a_subset_of_class_folders_is_balanced_and_fixed(root: Path) -> None:
    for path in (root / "train" / "bee").glob("[12].JPEG"):
        path.unlink()
    samples = list_samples(root / "train", ["ant", "bee"])
    assert [label for _, label in samples] == [0, 0, 0, 0, 1, 1]
    chosen = balanced_samples(samples, 4, 0)
    assert [label for _, label in chosen] == [0, 0, 1, 1]
    assert chosen == balanced_samples(samples, 4, 0) and set(chosen) < set(samples)
    assert {tuple(balanced_samples(samples, 4, seed)) for seed in range(8)} != {tuple(chosen)}
    assert balanced_samples(samples, 99, 0) == samples


def test_the_images_asked_for_are_the_images_used(root: Path, tmp_path: Path) -> None:
    from lightning_fabric import Fabric

    from pipelines.tasks import folder_set
    from search.image_folder import CropSettings

    prepared(root, tmp_path)
    crop = CropSettings(size=32, resize=32, smallest_crop=0.5, lighting=0.0, decoder="pil")
    fabric = Fabric(accelerator="cpu", devices=1)
    found = folder_set(
        tmp_path / "data" / "imagenet", "train", crop, 2, seed=3, workers=0, fabric=fabric, count=4
    )
    assert found.images == 4 and found.classes == 2
    labels = [int(label) for _, batch in found.batches.epoch(0) for label in batch]
    assert sorted(labels) == [0, 0, 1, 1]
