"""Image folders (ImageNet's layout: one folder a class) with the two ImageNet pipelines of the recipes.

A sample's augmentation is a function of (seed, epoch, index), whatever the number of loading processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader, find_classes, make_dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from search.errors import InputError
from search.settings import Settings

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Principal components of ImageNet's RGB pixels (Krizhevsky et al. 2012, section 4.1)."""


class CropSettings(Settings):
    """Sizes and augmentation of the ImageNet pipelines.

    Attributes:
        size: Side of the network's input.
        resize: Shorter side before the centre crop of evaluation.
        smallest_crop: Least share of the area that a training crop covers.
        lighting: Standard deviation of the colour lighting (Krizhevsky et al. 2012); 0 for none.
    """

    size: int = Field(ge=32)
    resize: int = Field(ge=32)
    smallest_crop: float = Field(gt=0, le=1)
    lighting: float = Field(ge=0)


class Lighting(torch.nn.Module):
    """Colour lighting: add a random multiple of the RGB principal components to all pixels of an image in [0, 1]."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, image: Tensor) -> Tensor:
        """(3, H, W) to (3, H, W)."""
        weights = torch.randn(3) * self.deviation * torch.tensor(_EIGENVALUES)
        return image + (torch.tensor(_EIGENVECTORS) @ weights).view(3, 1, 1)


def training_pipeline(crop: CropSettings) -> Any:
    """RandomResizedCrop, flip, colour lighting, normalisation."""
    steps = [
        transforms.RandomResizedCrop(crop.size, scale=(crop.smallest_crop, 1.0), antialias=True),
        transforms.RandomHorizontalFlip(),
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        *([Lighting(crop.lighting)] if crop.lighting > 0 else []),
        transforms.Normalize(MEAN, STD),
    ]
    return transforms.Compose(steps)


def evaluation_pipeline(crop: CropSettings) -> Any:
    """Resize the shorter side (bicubic), centre crop, normalisation."""
    return transforms.Compose(
        [
            transforms.Resize(crop.resize, interpolation=InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(crop.size),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(MEAN, STD),
        ]
    )


class _Samples(Dataset[tuple[Tensor, int]]):
    """Decoded and transformed samples, addressed by (epoch, index)."""

    def __init__(self, samples: list[tuple[str, int]], pipeline: Any, seed: int) -> None:
        self.samples, self.pipeline, self.seed = samples, pipeline, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:  # type: ignore[override]
        epoch, index = key
        path, label = self.samples[index]
        try:
            image = default_loader(path)
        except OSError as error:
            raise InputError(
                f"cannot be read as an image ({error})", where=path, mend="mend or remove it"
            ) from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)[0]))
            return self.pipeline(image), label


class FolderBatches:
    """Batches of ``root/<class>/*`` for one purpose; the counterpart of :class:`search.data.Batches`.

    Args:
        root: The folder with one folder a class.
        crop: Sizes and augmentation.
        batch_size: Images of a global batch.
        training: Shuffle and augment, or evaluate in the order of the names.
        seed: Decides, with the epoch, order and augmentation.
        workers: Loading processes; they change nothing but the speed.
        rank, world: This process and the number of processes.
        device: Where the batches go.
    """

    def __init__(
        self,
        root: str | Path,
        crop: CropSettings,
        batch_size: int,
        *,
        training: bool,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        try:
            self.classes, indices = find_classes(str(root))
            self.samples = make_dataset(str(root), indices, EXTENSIONS)
        except FileNotFoundError as error:
            raise InputError(str(error), where=root, mend="expected one folder of images a class") from None
        if training and batch_size > len(self.samples):
            raise InputError(
                f"batch_size {batch_size} is larger than the set", allowed=f"1 to {len(self.samples)}"
            )
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.rank, self.world, self.device = rank, world, torch.device(device)
        pipeline = training_pipeline(crop) if training else evaluation_pipeline(crop)
        self.data = _Samples(self.samples, pipeline, seed)
        self.workers = workers

    def __len__(self) -> int:
        full, rest = divmod(len(self.samples), self.batch_size)
        return full + (rest > 0 and not self.training)

    def _keys(self, epoch: int) -> list[list[tuple[int, int]]]:
        count = len(self.samples)
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
        )
        order = torch.randperm(count, generator=generator).tolist() if self.training else list(range(count))
        batches = []
        for index in range(len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            first, last = (len(chosen) * r // self.world for r in (self.rank, self.rank + 1))
            batches.append([(epoch, sample) for sample in chosen[first:last]])
        return batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches (B, 3, size, size), channels last, and their labels (B,)."""
        loader: DataLoader[Any] = DataLoader(
            self.data, batch_sampler=self._keys(epoch), num_workers=self.workers
        )  # type: ignore[arg-type]
        for x, y in loader:
            yield x.to(self.device, memory_format=torch.channels_last), y.to(self.device)
