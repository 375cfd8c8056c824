"""Detection data: the user's VOC or COCO folder, real tree photographs, or scenes made from CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from pipelines.datasets import cifar10, coco, coco_source, layout, scenes, trees, voc_source
from pipelines.datasets.layout_detection import normalise
from pipelines.datasets.manifest import write_manifest
from pipelines.datasets.opened import say
from pipelines.datasets.settings import SceneData
from pipelines.stage import output_folder
from search.files import write_text


def prepare(settings: SceneData, target: Path, cifar10_folder: Path) -> None:
    """Write ``target``: normalised annotation files and a manifest, and the pictures of a set that is made here."""
    if settings.stand_in is not None and settings.kind == scenes.STAND_IN:
        scenes.make(settings.stand_in, target, cifar10.load(cifar10_folder))
    elif settings.tiles is not None and settings.kind == trees.NAME:
        names = [*settings.tiles.train, *settings.tiles.val]
        trees.make(settings.tiles, target, trees.obtain(settings.folder, names))
    else:
        _normalise(settings, target)


def _normalise(settings: SceneData, target: Path) -> None:
    root = layout.existing_folder(settings.folder, "data.detection.folder")
    read = voc_source.read if settings.kind == "voc" else coco_source.read
    splits = {"train": settings.train or [], "val": settings.val or []}
    sources, classes, notes = read(root, splits, settings.classes)
    found = normalise(sources, classes, settings.smallest_side or 1)
    said = [*notes, *found.said]
    with output_folder(target) as folder:
        for split, text in found.files.items():
            write_text(folder / coco.annotation_file(split), text)
        write_manifest(
            folder,
            name=str(settings.name),
            stand_in=False,
            note="the user's folder; sha256 is over the normalised annotations and the pictures' content",
            sha256=found.sha256,
            counts=found.counts,
            root=str(root),
            source=settings.kind,
            left_out=found.left_out,
            said=said,
            **coco.layout_of(classes, {split: source.folder for split, source in sources.items()}),
        )
    say(said)
