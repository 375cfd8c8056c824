"""CMC and mAP from the definition (Zheng et al., ICCV 2015): the yardstick for Torchreid's evaluator.

The rules of Market-1501, for one query of identity ``p`` seen by camera ``c``:

- **junk**: a gallery image of identity -1 is neither right nor wrong, it is left out;
- **same camera**: a gallery image of identity ``p`` seen by camera ``c`` is left out too;
- **distractor**: identity 0 stays in the gallery and is always wrong;
- a query with no right image left is not counted.

CMC(k) is the share of counted queries with a right image among the first k that are left. AP is the mean of
the precisions at the ranks of the right images (the finite sum that Torchreid, and almost every paper after
2016, computes; the first evaluation script of Market-1501 joined the precisions by trapezoids, which gives
slightly other numbers). mAP is the mean of AP over the counted queries.

Plain loops on purpose: this is read against the definition, and is used where speed does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.errors import InputError

JUNK = -1


@dataclass(frozen=True)
class Retrieval:
    """How well the gallery was ranked.

    Attributes:
        cmc: CMC(1), CMC(2), ... in [0, 1], never falling.
        map: Mean average precision in [0, 1].
        queries: Number of queries that were counted.
    """

    cmc: tuple[float, ...]
    map: float
    queries: int

    def rank(self, k: int) -> float:
        """CMC(k); beyond the last listed rank it no longer changes, so that one is given."""
        return self.cmc[min(k, len(self.cmc)) - 1]


def kept(
    distances: Sequence[float],
    pid: int,
    camera: int,
    gallery_pids: Sequence[int],
    gallery_cameras: Sequence[int],
) -> list[int]:
    """Gallery indices by distance (ties: the lower index first), without junk and the same camera's."""
    order = sorted(range(len(distances)), key=lambda index: (distances[index], index))
    return [
        index
        for index in order
        if gallery_pids[index] != JUNK
        and not (gallery_pids[index] == pid and gallery_cameras[index] == camera)
    ]


def average_precision(right: Sequence[bool]) -> float:
    """AP of one ranked list: the mean over its right places of the precision up to there.

    Examples:
        >>> average_precision([True, False, True])  # (1/1 + 2/3) / 2
        0.8333333333333333
    """
    precisions: list[float] = []
    hits = 0
    for place, is_right in enumerate(right, start=1):
        if is_right:
            hits += 1
            precisions.append(hits / place)
    return sum(precisions) / len(precisions)


def evaluate(
    distances: Sequence[Sequence[float]],
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    max_rank: int = 50,
) -> Retrieval:
    """CMC and mAP of a distance matrix.

    Args:
        distances: One row a query, one column a gallery image; smaller is nearer.
        query_pids, gallery_pids: Identities.
        query_cameras, gallery_cameras: Cameras.
        max_rank: Length of the CMC.

    Raises:
        InputError: No query has a right gallery image of another camera.
    """
    first_places: list[int] = []
    precisions: list[float] = []
    for row, pid, camera in zip(distances, query_pids, query_cameras, strict=True):
        ranking = kept(row, pid, camera, gallery_pids, gallery_cameras)
        right = [gallery_pids[index] == pid for index in ranking]
        if any(right):
            first_places.append(right.index(True) + 1)
            precisions.append(average_precision(right))
    if not precisions:
        raise InputError("no query has a gallery image of another camera")
    count = len(precisions)
    cmc = tuple(sum(place <= k for place in first_places) / count for k in range(1, max_rank + 1))
    return Retrieval(cmc, sum(precisions) / count, count)
