"""A trained network as a feature extractor: embeddings of pictures, for a tracker or a search index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from downstream.reid import data, model
from downstream.reid.evaluate import Embeddings, distances, rank
from downstream.reid.layout import Picture
from downstream.reid.loaders import preprocessing
from downstream.reid.model import ReidNetwork
from downstream.reid.settings import Layout
from search.errors import InputError
from search.files import atomic
from search.pictures import EXTENSIONS, list_folder, open_picture
from search.weights import load_weights, read_header

DISTANCES = {
    "cosine": "1 - <a, b> / (|a| |b|), in [0, 2]; smaller is nearer",
    "euclidean": "|a - b|^2, the squared Euclidean distance; smaller is nearer",
}


def load(weights: str | Path) -> tuple[ReidNetwork, dict[str, str]]:
    """The trained network of a weight file in evaluation mode, and the file's header.

    Raises:
        InputError: The file is no weight file of this stage.
    """
    header = read_header(weights)
    missing = [key for key in ("height", "width", "distance") if key not in header]
    if header["architecture"].get("kind") != "reid" or missing:
        raise InputError("not weights of a re-identification network", where=weights)
    network = model.rebuild(header["architecture"])
    load_weights(weights, network)
    return network.eval(), header


def pictures(folder: Path) -> list[Path]:
    """All pictures below ``folder``, in order of their paths; what is hidden is no picture.

    Raises:
        InputError: The folder is missing or holds none.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder)
    found: list[Path] = []
    folders = [folder]
    for below in folders:
        listing = list_folder(below)
        found += [below / name for name in (*listing.pictures, *listing.dangling)]
        folders += [below / name for name in listing.folders if not (below / name).is_symlink()]
    if not found:
        raise InputError("no picture in this folder", where=folder, allowed=", ".join(EXTENSIONS))
    return sorted(found)


@torch.no_grad()
def embed(network: ReidNetwork, files: list[Path], height: int, width: int, batch: int) -> np.ndarray:
    """Features of pictures, (N, D) float32, one row a file; not normalised."""
    transform = preprocessing(height, width)

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(files), batch):
            chunk = files[start : start + batch]
            yield torch.stack([transform(open_picture(str(file))) for file in chunk])

    device = next(network.parameters()).device
    return torch.cat([network(images.to(device)).float().cpu() for images in batches()]).numpy()


def evaluate(
    weights: str | Path, folder: str | Path, kind: Layout | None, *, rerank: bool, batch: int
) -> dict[str, float]:
    """CMC and mAP of trained weights on any data set: train on one, test on another.

    Args:
        weights: Of a run of this stage.
        folder: The data set's folder.
        kind: Its layout; None: found by what lies in the folder.
        rerank: k-reciprocal re-ranking.
        batch: Pictures at a time.

    Returns:
        ``rank1``, ``rank5``, ``rank10``, ``map`` in [0, 1], and the number of ``queries``.
    """
    network, header = load(weights)
    splits = data.read(kind or data.find_layout(Path(folder)), Path(folder))
    height, width = int(header["height"]), int(header["width"])

    def embedded(split: Sequence[Picture]) -> Embeddings:
        files = [picture.path for picture in split]
        features = torch.from_numpy(embed(network, files, height, width, batch))
        pids, cameras = ([getattr(picture, name) for picture in split] for name in ("pid", "camera"))
        return Embeddings(features, np.array(pids), np.array(cameras), [str(file) for file in files])

    query, gallery = embedded(splits.query), embedded(splits.gallery)
    found = rank(distances(query, gallery, metric=header["distance"], rerank=rerank), query, gallery)
    return {**{f"rank{k}": found.rank(k) for k in (1, 5, 10)}, "map": found.map, "queries": found.queries}


def extract(weights: str | Path, folder: str | Path, output: str | Path, *, batch: int = 64) -> int:
    """Write ``output``, a numpy .npz file without pickles.

    It holds ``features`` (N, D) float32, ``paths`` (N,) text, relative to ``folder``, and ``metadata``: one
    JSON text with the distance function to compare features by, the input size and the architecture's hash.

    Returns:
        N.
    """
    network, header = load(weights)
    root = Path(folder)
    files = pictures(root)
    features = embed(network, files, int(header["height"]), int(header["width"]), batch)
    metadata = {
        "schema": 1,
        "distance": header["distance"],
        "distance_definition": DISTANCES[header["distance"]],
        "height": int(header["height"]),
        "width": int(header["width"]),
        "architecture_hash": header["architecture_hash"],
        "trained_on": header.get("dataset", ""),
    }
    with atomic(output) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            features=features,
            paths=np.array([str(file.relative_to(root)) for file in files]),
            metadata=np.array(json.dumps(metadata)),
        )
    return len(files)
