"""The COCO data set of every detector here: labels by name, ignored regions, pictures by the suite's one decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from downstream.detection import operators
from downstream.detection.data import read_manifest
from search.pictures import open_picture

operators.install()

from mmcv.transforms import BaseTransform, LoadImageFromFile  # noqa: E402
from mmdet.datasets import CocoDataset  # noqa: E402
from mmdet.datasets.api_wrappers import COCO  # noqa: E402
from mmdet.registry import DATASETS, TRANSFORMS  # noqa: E402


def degenerate(box: list[float]) -> bool:
    """Whether a box x1, y1, x2, y2 has no area."""
    return box[2] <= box[0] or box[3] <= box[1]


@TRANSFORMS.register_module(force=True)
class LoadPicture(BaseTransform):
    """Read ``img_path`` by :func:`search.pictures.open_picture` into ``img``, uint8 (H, W, 3), BGR.

    mmcv's own loader turns every picture by its EXIF orientation and cuts 16-bit ones to white; here ``turn`` of
    the annotation decides, so that boxes and pixels agree.
    """

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape`` (height, width)."""
        picture = open_picture(results["img_path"], turn=bool(results.get("turn")))
        results["img"] = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


class _ByName(COCO):
    """COCO's index with category ids in the order that their names are asked for, whatever the file's order."""

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list[Any]:
        found = super().get_cat_ids(list(cat_names), list(sup_names), list(cat_ids))
        names = list(cat_names)
        return sorted(found, key=lambda number: names.index(self.cats[number]["name"])) if names else found


@DATASETS.register_module(force=True)
class CountingCocoDataset(CocoDataset):
    """CocoDataset whose labels follow the class names, and that counts the boxes without area it leaves out.

    mmdet itself numbers labels in the order of the file, so that another order of the same categories in the test
    file scores under wrong classes. A missing ``area`` is that of the box. mmcv's picture loader in the pipeline is
    replaced by :class:`LoadPicture`.
    """

    COCOAPI = _ByName

    def __init__(self, *args: Any, pipeline: Sequence[Any] = (), **kwargs: Any) -> None:
        self.skipped_boxes = 0
        super().__init__(*args, pipeline=[_own_loader(step) for step in pipeline], **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """One image with its boxes; boxes of no area are counted (CocoDataset itself drops them)."""
        annotations = []
        for annotation in raw_data_info["raw_ann_info"]:
            x, y, width, height = annotation["bbox"]
            self.skipped_boxes += degenerate([x, y, x + width, y + height])
            annotations.append({**annotation, "area": annotation.get("area") or width * height})
        info = super().parse_data_info({**raw_data_info, "raw_ann_info": annotations})
        assert isinstance(info, dict)
        info["turn"] = int(raw_data_info["raw_img_info"].get("turn", 0))
        return info


def _own_loader(step: Any) -> Any:
    kind = step.get("type") if isinstance(step, dict) else type(step)
    return {"type": LoadPicture} if kind in (LoadImageFromFile, "LoadImageFromFile") else step


@DATASETS.register_module(force=True)
class PreparedDataset(CountingCocoDataset):
    """One split of what ``python -m pipelines.prepare detection`` wrote.

    Args:
        folder: The prepared data set, with its manifest.json.
        split: ``train`` or ``val``.
    """

    def __init__(self, folder: str, split: str, **kwargs: Any) -> None:
        data = read_manifest(folder)
        part = data.train[0] if split == "train" else data.test
        super().__init__(
            ann_file=str(part.annotations.absolute()),
            data_prefix={"img": f"{part.images.absolute()}/"},
            metainfo={"classes": data.classes},
            **kwargs,
        )
