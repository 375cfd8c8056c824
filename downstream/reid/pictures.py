"""Retrieval pictures: a query, its ten nearest gallery images, and which of them are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from downstream.reid.evaluate import Evaluation
from downstream.reid.metrics import kept
from search.files import atomic
from search.pictures import open_picture

NEAREST = 10
TILE_HEIGHT = 64
FRAME = 3
GAP = 4
# Blue-green and vermilion: told apart by colour-blind readers too; a cross marks the wrong ones besides.
RIGHT, WRONG, QUERY = (0, 140, 110), (213, 70, 0), (40, 40, 40)
COLOURS = 64


def write(folder: Path, evaluation: Evaluation, count: int) -> list[Path]:
    """Draw ``count`` queries, spread evenly over the list of queries, so the same ones for every model.

    Returns:
        The files, ``query-<place in the list>.png``, each about 20 kB.
    """
    total = len(evaluation.query.paths)
    places = sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(min(count, total))})
    files = []
    for place in places:
        file = folder / f"query-{place:05d}.png"
        strip = draw(evaluation, place)
        with atomic(file) as temporary:
            strip.quantize(COLOURS).save(temporary, format="png", optimize=True)
        files.append(file)
    return files


def draw(evaluation: Evaluation, place: int) -> Image.Image:
    """The query at ``place`` and its nearest: a green frame is right, a red frame and a cross is wrong."""
    query, gallery = evaluation.query, evaluation.gallery
    pid, camera = int(query.pids[place]), int(query.cameras[place])
    row: np.ndarray = evaluation.matrix[place]
    ranking = kept(row.tolist(), pid, camera, gallery.pids.tolist(), gallery.cameras.tolist())[:NEAREST]
    tiles = [_tile(query.paths[place], QUERY)]
    for index in ranking:
        tiles.append(_tile(gallery.paths[index], RIGHT if gallery.pids[index] == pid else WRONG))
    width = sum(tile.width for tile in tiles) + GAP * len(tiles) + GAP
    strip = Image.new("RGB", (width, TILE_HEIGHT + 2 * FRAME), "white")
    left = 0
    for position, tile in enumerate(tiles):
        strip.paste(tile, (left, 0))
        left += tile.width + (3 * GAP if position == 0 else GAP)
    return strip.crop((0, 0, left - GAP, strip.height))


def _tile(path: str, colour: tuple[int, int, int]) -> Image.Image:
    picture = open_picture(path)
    size = (max(1, round(picture.width * TILE_HEIGHT / picture.height)), TILE_HEIGHT)
    tile = Image.new("RGB", (size[0] + 2 * FRAME, size[1] + 2 * FRAME), colour)
    tile.paste(picture.resize(size, Image.Resampling.BILINEAR), (FRAME, FRAME))
    if colour == WRONG:
        pen = ImageDraw.Draw(tile)
        side = TILE_HEIGHT // 5
        box = (FRAME + 1, FRAME + 1, FRAME + side, FRAME + side)
        pen.line(box, fill=colour, width=3)
        pen.line((box[0], box[3], box[2], box[1]), fill=colour, width=3)
    return tile
