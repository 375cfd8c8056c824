"""What the trainer, the teachers and the evaluation read images from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

from torch import Tensor


class EpochBatches(Protocol):
    """What the trainer reads: :class:`search.data.Batches` or :class:`search.image_folder.FolderBatches`."""

    batch_size: int

    def __len__(self) -> int: ...  # noqa: D105

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch."""
        ...

    def indices(self, epoch: int) -> Iterator[Tensor]:
        """Which images of the set these batches hold."""
        ...

    def plain(self) -> Self:
        """All images of the set, unaugmented and in their own order."""
        ...
