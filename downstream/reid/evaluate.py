"""Features, distances, CMC and mAP by Torchreid, for a trained or an untrained model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from downstream.reid.compat import quiet, torchreid
from downstream.reid.metrics import JUNK, Retrieval
from search.errors import InputError

MAX_RANK = 50
# A raw-pixel feature is the picture shrunk to this height and width: the floor that needs no network.
PIXELS = (28, 23)


@dataclass(frozen=True)
class Embeddings:
    """Features of a list of pictures.

    Attributes:
        features: (N, D) float32.
        pids, cameras: (N,) integers.
        paths: The N files.
    """

    features: Tensor
    pids: np.ndarray
    cameras: np.ndarray
    paths: list[str]


@torch.no_grad()
def embed(model: nn.Module, loader: Iterable[dict[str, Any]], device: torch.device) -> Embeddings:
    """Features of all pictures of a loader, by a model in evaluation mode (then it returns features)."""
    model.eval()
    features: list[Tensor] = []
    pids: list[int] = []
    cameras: list[int] = []
    paths: list[str] = []
    for batch in loader:
        features.append(model(batch["img"].to(device)).float().cpu())
        pids += batch["pid"].tolist()
        cameras += batch["camid"].tolist()
        paths += batch["impath"]
    return Embeddings(torch.cat(features), np.asarray(pids), np.asarray(cameras), paths)


class Pixels(nn.Module):
    """The picture itself, shrunk, as its feature: a floor for every network."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3 * 28 * 23)."""
        return F.adaptive_avg_pool2d(x, PIXELS).flatten(1)


def distances(query: Embeddings, gallery: Embeddings, *, metric: str, rerank: bool) -> np.ndarray:
    """Torchreid's distance matrix, (queries, gallery) float32; smaller is nearer.

    Args:
        query, gallery: What to compare.
        metric: ``cosine``: 1 - cos; ``euclidean``: the *squared* Euclidean distance, as in Torchreid.
        rerank: k-reciprocal re-ranking by Torchreid (k1 = 20, k2 = 6, lambda = 0.3, its defaults).
    """
    compute = torchreid().metrics.compute_distance_matrix
    matrix = compute(query.features, gallery.features, metric).numpy()
    if rerank:
        among_queries = compute(query.features, query.features, metric).numpy()
        among_gallery = compute(gallery.features, gallery.features, metric).numpy()
        matrix = torchreid().utils.re_ranking(matrix, among_queries, among_gallery)
    return np.asarray(matrix, dtype=np.float32)


def rank(matrix: np.ndarray, query: Embeddings, gallery: Embeddings) -> Retrieval:
    """CMC and mAP by Torchreid's evaluator in its Python implementation.

    Its CMC must have the same length for every query, or numpy refuses it; a query with few gallery images
    left would shorten it. So the longest common length is asked for, at most 50.

    Raises:
        InputError: The distances are not finite, or no query has a right gallery image.
    """
    if not np.isfinite(matrix).all():
        raise InputError(
            "the features are not finite, nothing can be ranked", mend="lower reid.learning_rate"
        )
    keep = gallery.pids != JUNK
    matrix, pids, cameras = matrix[:, keep], gallery.pids[keep], gallery.cameras[keep]
    same = (query.pids[:, None] == pids) & (query.cameras[:, None] == cameras)
    right = (query.pids[:, None] == pids) & ~same
    if not right.any():
        raise InputError("no query has a gallery image of another camera")
    counted = right.any(axis=1)
    length = min(MAX_RANK, int((~same).sum(axis=1)[counted].min()))
    with quiet():
        cmc, mean_ap = torchreid().metrics.evaluate_rank(
            matrix, query.pids, pids, query.cameras, cameras, max_rank=length, use_cython=False
        )
    return Retrieval(tuple(float(value) for value in cmc), float(mean_ap), int(counted.sum()))


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: the numbers, and what pictures of it need."""

    retrieval: Retrieval
    query: Embeddings
    gallery: Embeddings
    matrix: np.ndarray


def evaluate(
    model: nn.Module, loaders: dict[str, Any], device: torch.device, *, metric: str, rerank: bool
) -> Evaluation:
    """Evaluate a model on one target.

    Args:
        model: Returns (N, D) features in evaluation mode.
        loaders: Torchreid's ``{"query": loader, "gallery": loader}``.
        device: Where the model is.
        metric, rerank: See :func:`distances`.
    """
    query, gallery = (embed(model, loaders[split], device) for split in ("query", "gallery"))
    matrix = distances(query, gallery, metric=metric, rerank=rerank)
    return Evaluation(rank(matrix, query, gallery), query, gallery, matrix)
