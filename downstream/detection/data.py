"""Detection data by manifest: which files, which layout, which classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.errors import InputError
from search.files import read_json

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Order of the PASCAL VOC classes in the development kit."""


@dataclass(frozen=True)
class Part:
    """One annotated set of images.

    Attributes:
        annotations: COCO: the JSON file. VOC: the split's text file.
        images: COCO: the folder of images. VOC: the folder with JPEGImages/ and Annotations/.
    """

    annotations: Path
    images: Path


@dataclass(frozen=True)
class DetectionData:
    """A detection data set.

    Attributes:
        name, stand_in, note, sha256: What the records say about it.
        layout: ``coco`` or ``voc``.
        classes: Class names; a label is an index into them.
        train: Parts trained on (VOC 07+12 has two).
        test: The part evaluated on.
    """

    name: str
    stand_in: bool
    note: str
    sha256: str | None
    layout: Literal["coco", "voc"]
    classes: tuple[str, ...]
    train: tuple[Part, ...]
    test: Part


def read_manifest(path: str | Path) -> DetectionData:
    """Read ``manifest.json`` of a prepared data set (a file, or the folder that holds it).

    Keys: name, stand_in, note, sha256, root (relative to the manifest), format (``coco`` or ``voc``),
    classes. COCO: ``train`` and ``val`` are ``{"annotations": file, "images": folder}``. VOC: both are lists
    of year folder and split, ``VOC2007/trainval``; only one may be tested on.
    """
    file = Path(path) / "manifest.json" if Path(path).is_dir() else Path(path)
    manifest = read_json(file)
    if missing := {"name", "stand_in", "format", "train", "val"} - set(manifest):
        raise InputError(
            f"no key {', '.join(sorted(missing))}", where=file, mend="prepare the detection data again"
        )
    layout = manifest["format"]
    if layout not in ("coco", "voc"):
        raise InputError(f"format {layout!r}", where=file, allowed="coco, voc")
    root = file.parent / manifest.get("root", ".")
    part = _coco_part if layout == "coco" else _voc_part
    train, val = ([part(root, entry) for entry in _listed(manifest[split])] for split in ("train", "val"))
    if len(val) != 1:
        raise InputError(f"{len(val)} parts to test on", where=f"{file}: val", allowed=1)
    named = manifest.get("classes") or (coco_classes(val[0].annotations) if layout == "coco" else VOC_CLASSES)
    return DetectionData(
        name=manifest["name"],
        stand_in=manifest["stand_in"],
        note=manifest.get("note", ""),
        sha256=manifest.get("sha256"),
        layout=layout,
        classes=_in_file_order(val[0].annotations, named) if layout == "coco" else tuple(named),
        train=tuple(train),
        test=val[0],
    )


def coco_classes(annotations: Path) -> tuple[str, ...]:
    """Category names of a COCO file in its own order."""
    return tuple(category["name"] for category in read_json(annotations)["categories"])


def _in_file_order(annotations: Path, named: Sequence[str]) -> tuple[str, ...]:
    """mmdet numbers the labels in the order of the file, whatever order it is asked for."""
    return tuple(name for name in coco_classes(annotations) if name in set(named))


def _listed(entry: Any) -> list[Any]:
    return list(entry) if isinstance(entry, list) else [entry]


def _coco_part(root: Path, entry: Mapping[str, str]) -> Part:
    return Part(root / entry["annotations"], root / entry["images"])


def _voc_part(root: Path, entry: str) -> Part:
    year, _, split = entry.rpartition("/")
    return Part(root / year / "ImageSets" / "Main" / f"{split}.txt", root / year)
