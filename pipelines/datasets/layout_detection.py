"""Checks of VOC and COCO folders. Boxes without area are counted, not refused: real sets have a few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from downstream.detection.data import VOC_CLASSES
from pipelines.datasets.layout import PICTURES, Layout, existing_folder, listed
from pipelines.datasets.manifest import ContentHash
from search.errors import InputError, nearest
from search.files import read_json, sha256_file

TOLERANCE = 1.0  # pixels: VOC counts from 1, COCO rounds


@dataclass
class _Count:
    """What one split holds."""

    images: int = 0
    boxes: int = 0
    without_area: int = 0

    def box(
        self, left: float, top: float, right: float, bottom: float, size: tuple[float, float], what: str
    ) -> None:
        """Take in one box; raise if it leaves the picture of this width and height."""
        self.boxes += 1
        if right <= left or bottom <= top:
            self.without_area += 1
            return
        if min(left, top) < -TOLERANCE or right > size[0] + TOLERANCE or bottom > size[1] + TOLERANCE:
            box = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
            raise InputError(f"{what}: box {box} leaves its picture of {size[0]:g} x {size[1]:g}")


def _layout(
    counts: dict[str, _Count], content: ContentHash, classes: Sequence[str], more: dict[str, Any]
) -> Layout:
    numbers = {"classes": len(classes)}
    for split, count in counts.items():
        if not count.images:
            raise InputError(f"the {split} split has no picture")
        numbers[f"{split}_images"] = count.images
        numbers[f"{split}_boxes"] = count.boxes
        numbers[f"{split}_boxes_without_area"] = count.without_area
    return Layout(numbers, content.hex(), list(classes), more)


def _picture(path: Path, said_by: object) -> Path:
    if not path.is_file():
        raise InputError(f"no such picture, though {said_by} names it", where=path)
    if path.stat().st_size == 0:
        raise InputError("empty file: half-copied?", where=path)
    return path


def check_coco(root: Path, train: list[str], val: list[str], classes: list[str] | None) -> Layout:
    """Check COCO JSON files and their pictures.

    Args:
        root: The data set's folder.
        train: Annotation file and picture folder, relative to ``root``.
        val: The same.
        classes: The category names to use, a part of the files' own allowed; None: all of the training file.
    """
    counts, content = {"train": _Count(), "val": _Count()}, ContentHash()
    more: dict[str, Any] = {}
    for split, (file, folder) in (("train", train), ("val", val)):
        path, place = root / file, root / folder
        if not place.is_dir():
            raise InputError(f"no such folder, the pictures of {split}", where=place)
        coco = _coco_file(path)
        names = [str(category["name"]) for category in coco["categories"]]
        classes = classes or names
        missing = set(classes) - set(names)
        if missing:
            raise InputError(f"no category {listed(missing)}", where=path, allowed=", ".join(names))
        _check_coco_split(coco, path, place, counts[split], content)
        more[split] = {"annotations": file, "images": folder}
    return _layout(counts, content, classes or [], more)


def _coco_file(path: Path) -> dict[str, list[dict[str, Any]]]:
    coco = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise InputError(
                f"no list {key!r} in it", where=path, allowed="COCO JSON: images, annotations, categories"
            )
    return coco


def _check_coco_split(
    coco: dict[str, list[dict[str, Any]]], path: Path, folder: Path, count: _Count, content: ContentHash
) -> None:
    content.text(sha256_file(path))
    sizes: dict[Any, tuple[float, float]] = {}
    for image in coco["images"]:
        picture = _picture(folder / str(_key(image, "file_name", "image", path)), path)
        content.text(f"{image['file_name']} {picture.stat().st_size}")
        sizes[_key(image, "id", "image", path)] = (
            float(_key(image, "width", "image", path)),
            float(_key(image, "height", "image", path)),
        )
        count.images += 1
    categories = {_key(category, "id", "category", path) for category in coco["categories"]}
    for annotation in coco["annotations"]:
        what = f"{path}: annotation {annotation.get('id')}"
        image_id, category = (
            _key(annotation, key, "annotation", path) for key in ("image_id", "category_id")
        )
        if image_id not in sizes:
            raise InputError(f"{what}: no image has its image_id {image_id}")
        if category not in categories:
            raise InputError(f"{what}: no category has its category_id {category}")
        x, y, width, height = _four(_key(annotation, "bbox", "annotation", path), what)
        count.box(x, y, x + width, y + height, sizes[image_id], what)


def _key(entry: dict[str, Any], key: str, kind: str, path: Path) -> Any:
    if key not in entry:
        raise InputError(f"{kind} {entry.get('id', entry.get('file_name'))} has no {key!r}", where=path)
    return entry[key]


def _four(box: Any, what: str) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(edge, int | float) for edge in box):
        raise InputError(f"{what}: bbox {box} is not [x, y, width, height]")
    return (box[0], box[1], box[2], box[3])


def check_voc(root: Path, train: list[str], val: list[str], classes: list[str] | None) -> Layout:
    """Check year folders of a VOCdevkit.

    Args:
        root: The data set's folder.
        train: Year folder and split, e.g. ``VOC2007/trainval``; several are joined.
        val: The same.
        classes: The class names; None: the 20 of VOC.
    """
    names = tuple(classes or VOC_CLASSES)
    counts, content = {"train": _Count(), "val": _Count()}, ContentHash()
    more: dict[str, Any] = {"train": train, "val": val}
    for split, sources in (("train", train), ("val", val)):
        for source in sources:
            year, _, part = source.rpartition("/")
            for identity in _voc_split(root / year, part):
                _check_voc_picture(root / year, identity, names, counts[split], content)
    return _layout(counts, content, names, more)


def _voc_split(folder: Path, part: str) -> Iterator[str]:
    existing_folder(str(folder), "data.detection.folder")
    path = folder / "ImageSets" / "Main" / f"{part}.txt"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem))
        raise InputError("no such split file", where=path, allowed=there or "ImageSets/Main/<split>.txt")
    return iter([line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])


def _check_voc_picture(
    folder: Path, identity: str, classes: tuple[str, ...], count: _Count, content: ContentHash
) -> None:
    path = folder / "Annotations" / f"{identity}.xml"
    try:
        annotation = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError("no such annotation, though its split names it", where=path) from None
    except ElementTree.ParseError as error:
        raise InputError(f"not valid XML ({error})", where=path) from None
    pictures = folder / "JPEGImages"
    there = (pictures / f"{identity}{suffix}" for suffix in PICTURES)
    picture = _picture(next((file for file in there if file.is_file()), pictures / f"{identity}.jpg"), path)
    content.text(f"{sha256_file(path)} {picture.name} {picture.stat().st_size}")
    size = (_number(annotation, "size/width", path), _number(annotation, "size/height", path))
    for entry in annotation.findall("object"):
        name = (entry.findtext("name") or "").strip()
        if name not in classes:
            close = nearest(name, classes)
            hint = f"did you mean {close!r}?" if close else "set data.detection.classes in params.yaml"
            raise InputError(
                f"class {name!r} is not in the list", where=path, allowed=", ".join(classes), mend=hint
            )
        edges = [_number(entry, f"bndbox/{edge}", path) for edge in ("xmin", "ymin", "xmax", "ymax")]
        count.box(edges[0], edges[1], edges[2], edges[3], size, str(path))
    count.images += 1


def _number(element: ElementTree.Element, name: str, path: Path) -> float:
    text = element.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise InputError(f"{name} is {text!r}, not a number", where=path) from None
