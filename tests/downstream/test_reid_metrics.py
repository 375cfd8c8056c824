"""CMC and mAP: values worked out by hand, and Torchreid's evaluator against our reading of the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downstream.reid import metrics
from downstream.reid.evaluate import Embeddings, distances, rank
from search.errors import InputError


def embeddings(pids: list[int], cameras: list[int]) -> Embeddings:
    return Embeddings(torch.zeros(len(pids), 1), np.array(pids), np.array(cameras), [""] * len(pids))


def both(
    matrix: list[list[float]], q: tuple[list[int], list[int]], g: tuple[list[int], list[int]]
) -> tuple[metrics.Retrieval, metrics.Retrieval]:
    ours = metrics.evaluate(matrix, q[0], g[0], q[1], g[1])
    return ours, rank(np.array(matrix, dtype=np.float32), embeddings(*q), embeddings(*g))


# By hand. Query 1 (identity 1, camera 1): in order of distance the gallery is
#   g1 (1, cam 1) same camera: left out; g2 (2) wrong; g0 (1, cam 2) right; g4 (-1) junk: left out;
#   g3 (1, cam 3) right,
# so right places are 2 and 3 of wrong, right, right: AP = (1/2 + 2/3) / 2 = 7/12, first right at 2.
# Query 2 (identity 2, camera 1): g2 (2, cam 2) is nearest: AP = 1, first right at 1.
# mAP = 19/24, CMC = 1/2, 1, 1. Query 3 (identity 9) has no right image and is not counted.
HAND = (
    [[0.3, 0.1, 0.2, 0.5, 0.4], [0.9, 0.8, 0.1, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4, 0.5]],
    ([1, 2, 9], [1, 1, 1]),
    ([1, 1, 2, 1, -1], [2, 1, 2, 3, 2]),
)


def test_by_hand() -> None:
    for found in both(*HAND):
        assert found.queries == 2
        assert found.map == pytest.approx(19 / 24)
        assert [found.rank(k) for k in (1, 2, 3, 10)] == pytest.approx([0.5, 1, 1, 1])


def test_average_precision_by_hand() -> None:
    assert metrics.average_precision([True, True]) == 1
    assert metrics.average_precision([False, True, False, True]) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_a_distractor_is_wrong_and_junk_is_nothing() -> None:
    gallery_cameras = [2, 2]
    for pid, expected in ((0, 0.5), (-1, 1.0)):
        for found in both([[0.1, 0.2]], ([1], [1]), ([pid, 1], gallery_cameras)):
            assert found.map == pytest.approx(expected)
            assert found.rank(1) == float(pid == -1)


def test_the_same_camera_is_left_out_only_for_the_same_identity() -> None:
    for found in both([[0.1, 0.2, 0.3]], ([1], [1]), ([1, 2, 1], [1, 1, 2])):
        assert found.map == pytest.approx(1 / 2)  # identity 2 of camera 1 stays, in front of the right one


def test_no_right_image_at_all() -> None:
    for evaluate in (
        lambda: metrics.evaluate([[0.1]], [1], [1], [1], [1]),
        lambda: rank(np.array([[0.1]], dtype=np.float32), embeddings([1], [1]), embeddings([1], [1])),
    ):
        with pytest.raises(InputError, match="no query has a gallery image of another camera"):
            evaluate()


def test_features_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        rank(np.array([[math.nan]], dtype=np.float32), embeddings([1], [1]), embeddings([1], [2]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_torchreid_agrees_with_the_definition(data: st.DataObject) -> None:
    queries, gallery = data.draw(st.integers(1, 8)), data.draw(st.integers(2, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    matrix = rng.permutation(queries * gallery).reshape(queries, gallery) / 7  # no ties: their order is free
    q = (rng.integers(1, 4, queries).tolist(), rng.integers(0, 3, queries).tolist())
    g = (rng.integers(-1, 4, gallery).tolist(), rng.integers(0, 3, gallery).tolist())
    q[0][0], q[1][0], g[0][0], g[1][0] = 1, 0, 1, 1  # at least one query counts
    ours, theirs = both(matrix.tolist(), q, g)
    assert theirs.queries == ours.queries
    assert theirs.map == pytest.approx(ours.map, abs=1e-6)
    assert theirs.cmc == pytest.approx(ours.cmc[: len(theirs.cmc)], abs=1e-6)


def test_distances_are_what_the_export_documents() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    query = Embeddings(torch.from_numpy(a), np.zeros(3), np.zeros(3), [])
    gallery = Embeddings(torch.from_numpy(b), np.zeros(4), np.zeros(4), [])
    squared = ((a[:, None] - b) ** 2).sum(-1)
    cosine = 1 - (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    assert distances(query, gallery, metric="euclidean", rerank=False) == pytest.approx(squared, abs=1e-5)
    assert distances(query, gallery, metric="cosine", rerank=False) == pytest.approx(cosine, abs=1e-5)


def test_reranking_brings_a_reciprocal_neighbour_forward() -> None:
    """Two tight clusters, and a query nearer to a lone point of the wrong one (Zhong et al. 2017)."""
    rng = np.random.default_rng(3)
    cluster = rng.normal(0, 0.05, (30, 2)) + np.array([1.0, 0.0])
    query = np.array([[0.55, 0.0]])
    lone = np.array([[0.1, 0.05]])  # nearest in distance, but its own neighbours are elsewhere
    other = rng.normal(0, 0.05, (30, 2)) + np.array([-0.2, 0.0])
    points = np.concatenate([cluster, lone, other]).astype(np.float32)
    q = Embeddings(torch.from_numpy(query.astype(np.float32)), np.array([1]), np.array([1]), [""])
    g = Embeddings(torch.from_numpy(points), np.array([1] * 30 + [2] * 31), np.array([2] * 61), [""] * 61)
    plain = rank(distances(q, g, metric="euclidean", rerank=False), q, g)
    reranked = rank(distances(q, g, metric="euclidean", rerank=True), q, g)
    assert plain.map < reranked.map == 1
