"""Images in memory as uint8, batches augmented at once, an order that is a function of (seed, epoch) alone.

Because nothing but (seed, epoch) decides order and augmentation, a run that was killed goes on bit for bit, and
several processes that each take their slice of every global batch see together what one process sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from search.errors import InputError
from search.settings import Settings

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)
"""Statistics of the CIFAR-10 training set in [0, 1]; a test recomputes them from the data."""


class Augmentation(Settings):
    """What happens to a training batch.

    Attributes:
        crop_padding: Zero pixels around the image before a random crop of its own size; 0 for none.
        flip: Mirror left-right with probability 1/2.
        cutout: Side of the square that is set to the mean (Cutout, DeVries and Taylor 2017); 0 for none.
    """

    crop_padding: int = Field(default=4, ge=0, le=256)
    flip: bool = True
    cutout: int = Field(default=0, ge=0, le=1024)


@dataclass(frozen=True)
class Images:
    """A labelled set: ``pixels`` (N, 3, H, W) uint8, ``labels`` (N,) int64, the number of classes, and statistics."""

    pixels: Tensor
    labels: Tensor
    classes: int
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Images:
        """The images at ``indices``, in that order."""
        return Images(self.pixels[indices], self.labels[indices], self.classes, self.mean, self.std)


def load_cifar10(folder: str | Path, part: str) -> Images:
    """CIFAR-10 as prepared by ``pipelines.prepare``: ``part`` is ``train`` (50,000) or ``test`` (10,000)."""
    root = Path(folder)
    try:
        pixels = np.load(root / f"{part}_images.npy", allow_pickle=False)
        labels = np.load(root / f"{part}_labels.npy", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{Path(error.filename).name} is missing",
            where=root,
            mend="run: python -m pipelines.prepare cifar10",
        ) from None
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long(), classes=10
    )


def split(images: Images, sizes: tuple[int, ...], seed: int) -> tuple[Images, ...]:
    """Disjoint class-balanced subsets of the given sizes, drawn with ``seed``.

    Raises:
        InputError: If there are not enough images.
    """
    if sum(sizes) > len(images):
        raise InputError(
            f"{' + '.join(map(str, sizes))} images asked for", allowed=f"at most {len(images)} in all"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(images), generator=generator)
    # Interleave the classes, so that every consecutive run of `classes` images has one of each.
    labels = images.labels[shuffled]
    rank = torch.empty(len(images), dtype=torch.long)
    for label in range(images.classes):
        places = (labels == label).nonzero().flatten()
        rank[places] = torch.arange(len(places))
    order = shuffled[torch.argsort(rank * images.classes + labels, stable=True)]
    starts = np.cumsum((0, *sizes))
    return tuple(images.subset(order[a:b]) for a, b in zip(starts[:-1], starts[1:], strict=True))


class Batches:
    """Batches of a set for one purpose.

    Args:
        images: The set.
        batch_size: Images of a global batch, over all processes.
        seed: Decides, with the epoch, order and augmentation.
        augmentation: For training; None gives the images as they are, in their own order.
        rank, world: This process and the number of processes; each takes its slice of every global batch.
        device: Where batches are made; pixels are moved there once.
        drop_last: Leave out a last batch that is not full (training, so that batch norm sees full batches).
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        drop_last: bool | None = None,
    ) -> None:
        self.drop_last = augmentation is not None if drop_last is None else drop_last
        if self.drop_last and batch_size > len(images):
            raise InputError(f"batch_size {batch_size} is larger than the set", allowed=f"1 to {len(images)}")
        if batch_size % world:
            raise InputError(f"batch_size {batch_size} does not divide over {world} processes")
        self.pixels, self.labels = images.pixels.to(device), images.labels.to(device)
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self.rank, self.world = rank, world
        self.mean = torch.tensor(images.mean, device=device).mul(255).view(1, 3, 1, 1)
        self.scale = 1 / torch.tensor(images.std, device=device).mul(255).view(1, 3, 1, 1)

    def __len__(self) -> int:
        full, rest = divmod(len(self.labels), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def plain(self) -> Batches:
        """All images of the set, unaugmented and in their own order."""
        other = copy.copy(self)
        other.augmentation, other.drop_last = None, False
        return other

    def indices(self, epoch: int) -> Iterator[Tensor]:
        """Which images of the set the batches of :meth:`epoch` hold."""
        for chosen, mine in self._chosen(epoch_generator(self.seed, epoch)):
            yield chosen[mine]

    def _chosen(self, generator: torch.Generator) -> Iterator[tuple[Tensor, slice]]:
        """The images of every global batch, and the slice of them that is this process's; draws their order."""
        count = len(self.labels)
        order = (
            torch.arange(count) if self.augmentation is None else torch.randperm(count, generator=generator)
        )
        for index in range(len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            first, last = (len(chosen) * r // self.world for r in (self.rank, self.rank + 1))
            yield chosen, slice(first, last)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches (B, 3, H, W) of torch's default type, channels last, and their labels (B,)."""
        generator = epoch_generator(self.seed, epoch)
        for chosen, mine in self._chosen(generator):
            pixels = self.pixels[chosen.to(self.pixels.device)]
            if self.augmentation is not None:
                pixels, holes = augment(pixels, self.augmentation, generator)
            else:
                holes = None
            x = (
                pixels[mine]
                .to(self.mean.dtype, memory_format=torch.channels_last)
                .sub_(self.mean)
                .mul_(self.scale)
            )
            if holes is not None:
                x.masked_fill_(holes[mine], 0.0)
            yield x, self.labels[chosen[mine].to(self.labels.device)]


def mixed_seed(*numbers: int, bits: Literal[32, 63] = 63) -> int:
    """One seed of several numbers, such as seed, epoch and index, so that neighbours do not meet.

    Sets in memory and image folders were first drawn with 63 and 32 ``bits``; each keeps its numbers.
    """
    sequence = np.random.SeedSequence(numbers)
    return int(sequence.generate_state(1, np.uint64)[0] >> 1 if bits == 63 else sequence.generate_state(1)[0])


def epoch_generator(seed: int, epoch: int, bits: Literal[32, 63] = 63) -> torch.Generator:
    """The generator of everything random in one epoch's batches; ``bits`` as in :func:`mixed_seed`."""
    return torch.Generator().manual_seed(mixed_seed(seed, epoch, bits=bits))


def augment(pixels: Tensor, how: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Random crop and flip of a uint8 batch (B, 3, H, W) by one gather, and the mask of the cutout squares.

    Returns:
        The batch, and a boolean mask (B, 1, H, W) of what cutout removes, or None.
    """
    count, _, height, width = pixels.shape
    device = pixels.device
    pad = how.crop_padding
    if pad or how.flip:
        shift_y = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
        shift_x = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
        mirrored = (
            torch.rand(count, 1, generator=generator) < 0.5 if how.flip else torch.zeros(count, 1).bool()
        )
        rows = torch.arange(height) + shift_y
        columns = torch.arange(width).expand(count, width)
        columns = torch.where(mirrored, width - 1 - columns, columns) + shift_x
        padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        batch = torch.arange(count).view(-1, 1, 1)
        pixels = padded[batch.to(device), rows[:, :, None].to(device), columns[:, None, :].to(device)]
        pixels = pixels.permute(0, 3, 1, 2)
    if not how.cutout:
        return pixels, None
    half = how.cutout // 2
    y = torch.randint(0, height, (count, 1), generator=generator)
    x = torch.randint(0, width, (count, 1), generator=generator)
    rows_in = ((torch.arange(height) >= y - half) & (torch.arange(height) < y - half + how.cutout))[
        :, :, None
    ]
    columns_in = ((torch.arange(width) >= x - half) & (torch.arange(width) < x - half + how.cutout))[
        :, None, :
    ]
    return pixels, (rows_in & columns_in)[:, None].to(device)
