"""Ground truth and detections side by side: one small SVG with an embedded JPEG for each test image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch

from search.files import write_text
from search.pictures import open_picture

SIDE = 240
"""Longer side of a picture in pixels; with JPEG quality 80 a dozen pictures stay below 200 KB."""
QUALITY = 80
GAP = 8
SHOWN_SCORE = 0.3
"""Detections below this score are evaluated but not drawn: at 0.05 a picture would be all boxes."""
COLOURS = (
    "#d81b60",
    "#1e88e5",
    "#ffc107",
    "#00897b",
    "#8e24aa",
    "#f4511e",
    "#3949ab",
    "#7cb342",
    "#6d4c41",
    "#00acc1",
)


def save_pictures(folder: Path, model: torch.nn.Module, test_set: Any, count: int) -> list[Path]:
    """Draw the first ``count`` test images, always the same ones, as ``folder/NN.svg``.

    Args:
        folder: Where the pictures go; made if missing.
        model: A trained mmdet detector.
        test_set: An mmdet data set in test mode.
        count: How many; fewer if the set is smaller.
    """
    from mmengine.dataset import pseudo_collate

    model.eval()
    paths = []
    classes = test_set.metainfo["classes"]
    for index in range(min(count, len(test_set))):
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([test_set[index]]))[0]  # type: ignore[operator]
        found = sample.pred_instances
        found = found[found.scores >= SHOWN_SCORE]
        truth = [(item["bbox"], item["bbox_label"], None) for item in sample.instances]
        boxes = zip(found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        path = folder / f"{index:02d}.svg"
        turn = bool(test_set.get_data_info(index).get("turn"))
        write_text(path, side_by_side(Path(sample.img_path), truth, list(boxes), classes, turn=turn))
        paths.append(path)
    return paths


def side_by_side(
    image: Path,
    truth: Sequence[tuple[Sequence[float], int, float | None]],
    found: Sequence[tuple[Sequence[float], int, float | None]],
    classes: Sequence[str],
    *,
    turn: bool = False,
) -> str:
    """The SVG: the image twice, true boxes on the left, detections with scores on the right.

    Args:
        image: The picture's file.
        truth, found: Boxes x1, y1, x2, y2 in the file's pixels, label, score.
        classes: Names of the labels.
        turn: Whether the boxes are meant in the picture as its EXIF orientation turns it.
    """
    jpeg, scale, (width, height) = _shrunk(image, turn)
    total = 2 * width + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {total} {height + 14}" width="{total}" height="{height + 14}" '
        'font-family="sans-serif" font-size="8">',
        f'<defs><image id="p" width="{width}" height="{height}" '
        f'xlink:href="data:image/jpeg;base64,{jpeg}"/></defs>',
    ]
    for left, title, boxes in ((0, "ground truth", truth), (width + GAP, "detections", found)):
        parts.append(f'<g transform="translate({left} 0)"><text x="2" y="10">{title}</text>')
        parts.append('<g transform="translate(0 14)"><use xlink:href="#p"/>')
        parts.extend(_box(box, label, score, scale, classes) for box, label, score in boxes)
        parts.append("</g></g>")
    return "\n".join([*parts, "</svg>\n"])


def _box(box: Sequence[float], label: int, score: float | None, scale: float, classes: Sequence[str]) -> str:
    x1, y1, x2, y2 = (value * scale for value in box)
    colour = COLOURS[label % len(COLOURS)]
    name = escape(classes[label]) + ("" if score is None else f" {score:.2f}")
    return (
        f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"/><text x="{x1 + 1:.1f}" y="{y1 + 8:.1f}" fill="{colour}" '
        f'stroke="#fff" stroke-width="2" paint-order="stroke">{name}</text>'
    )


def _shrunk(image: Path, turn: bool) -> tuple[str, float, tuple[int, int]]:
    from PIL import Image

    picture = open_picture(image, turn=turn)
    scale = min(1.0, SIDE / max(picture.size))
    size = (round(picture.width * scale), round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii"), scale, size
