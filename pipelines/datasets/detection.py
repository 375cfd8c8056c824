"""Detection data: the user's VOC or COCO folder, real tree photographs, or scenes made from CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from pipelines.datasets import cifar10, layout, layout_detection, scenes, trees
from pipelines.datasets.settings import SceneData


def prepare(settings: SceneData, target: Path, cifar10_folder: Path) -> None:
    """Write ``target``: pictures, boxes and a manifest, or a manifest of the user's folder."""
    if settings.stand_in is not None and settings.kind == scenes.STAND_IN:
        scenes.make(settings.stand_in, target, cifar10.load(cifar10_folder))
    elif settings.tiles is not None and settings.kind == trees.NAME:
        names = [*settings.tiles.train, *settings.tiles.val]
        trees.make(settings.tiles, target, trees.obtain(settings.folder, names))
    else:
        _describe(settings, target)


def _describe(settings: SceneData, target: Path) -> None:
    root = layout.existing_folder(settings.folder, "data.detection.folder")
    check = layout_detection.check_voc if settings.kind == "voc" else layout_detection.check_coco
    layout.describe(
        target,
        root,
        str(settings.name),
        check(root, settings.train or [], settings.val or [], settings.classes),
        hashed="annotations and the list of picture names and sizes",
        format=settings.kind,
    )
