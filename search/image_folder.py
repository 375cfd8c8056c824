"""Image folders (ImageNet's layout: one folder a class) with the two ImageNet pipelines of the recipes.

A sample's augmentation is a function of (seed, epoch, index), whatever the number of loading processes. These
decode, crop and flip; they hand over bytes, a quarter of what floats would take, and the device does the rest.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from search.data import epoch_generator, mixed_seed
from search.errors import InputError
from search.pictures import EXTENSIONS, list_folder, open_picture, utf8
from search.settings import Pixels, Settings

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SUBSET_SEED = 0
"""Draws the images of a subset: the same ones for every run's own seed."""
PREFETCH = 4
"""Batches that each loading process has ready or under way."""
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
        decoder: ``pil``, or ``torchvision`` for JPEG files: about twice as fast at 224 pixels, and other in the
            last bits of a pixel, since both decode and resize by their own arithmetic.
    """

    size: Pixels
    resize: Pixels
    smallest_crop: float = Field(gt=0, le=1)
    lighting: float = Field(ge=0, le=10)
    decoder: Literal["pil", "torchvision"]

    @model_validator(mode="after")
    def _crop_fits(self) -> CropSettings:
        if self.resize < self.size:
            raise ValueError(
                f"resize {self.resize} is less than size {self.size}: pictures would get black rims"
            )
        return self


def training_pipeline(crop: CropSettings) -> Any:
    """RandomResizedCrop and flip; a picture to bytes (3, size, size)."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(crop.size, scale=(crop.smallest_crop, 1.0), antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.ToImage(),
        ]
    )


def evaluation_pipeline(crop: CropSettings) -> Any:
    """Resize the shorter side (bicubic), centre crop; a picture to bytes (3, size, size)."""
    return transforms.Compose(
        [
            transforms.Resize(crop.resize, interpolation=InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(crop.size),
            transforms.ToImage(),
        ]
    )


def lighting(deviation: float) -> Tensor:
    """Colour lighting (3,): a random multiple of the RGB principal components, for all pixels of an image in [0, 1]."""
    return torch.tensor(_EIGENVECTORS) @ (torch.randn(3) * deviation * torch.tensor(_EIGENVALUES))


def decode(path: str, decoder: str) -> Any:
    """A picture in RGB: a PIL image, or bytes (3, H, W) of a JPEG by torchvision.

    torchvision decodes JPEG files of one or three channels. Whatever else carries a JPEG's name (PNG, CMYK), and
    what torchvision refuses, goes through Pillow, so that both decoders agree on what is a picture.

    Raises:
        InputError: If it cannot be read; names the file.
    """
    if decoder == "torchvision" and path.lower().endswith((".jpg", ".jpeg")):
        pixels = _jpeg(path)
        if pixels is not None:
            return pixels
    try:
        return open_picture(path)
    except InputError as error:
        raise InputError(
            str(error), mend="mend or remove it, or prepare with data.imagenet.verify decode and damaged skip"
        ) from None


def _jpeg(path: str) -> Tensor | None:
    """Bytes (3, H, W) of a JPEG file of one or three channels; None for anything else."""
    try:
        content = read_file(path)
        if _channels(content.numpy().tobytes()) not in (1, 3):
            return None
        return decode_image(content, mode=ImageReadMode.RGB)
    except (RuntimeError, OSError):
        return None


def _channels(content: bytes) -> int:
    """Channels that a JPEG's frame header states; 0 if it has none."""
    place = 2
    while content.startswith(b"\xff\xd8") and place + 10 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[place + 9]
        length = 0 if marker == 0xFF else int.from_bytes(content[place + 2 : place + 4], "big") + 1
        place += 1 + length
    return 0


def list_samples(root: Path, classes: Sequence[str], skip: Collection[str] = ()) -> list[tuple[str, int]]:
    """Paths and class indices of ``root/<class>/*``, in the order of the names.

    Args:
        root: The folder with one folder a class.
        classes: The class folders' names.
        skip: Paths below ``root`` to leave out.

    Raises:
        InputError: If a class has no folder or no image.
    """
    samples: list[tuple[str, int]] = []
    for index, name in enumerate(classes):
        before = len(samples)
        if not (root / name).is_dir():
            raise InputError(
                f"no class folder {name}", where=root, mend="expected one folder of images a class"
            )
        found = list_folder(root / name).pictures
        samples += [(str(root / name / file), index) for file in found if f"{name}/{file}" not in skip]
        if len(samples) == before:
            raise InputError("a class without images", where=root / name, allowed=", ".join(EXTENSIONS))
    return samples


def class_folders(root: Path) -> list[str]:
    """Names of the folders below ``root``, sorted; an error where there is none."""
    names = [utf8(name, root) for name in list_folder(root).folders] if root.is_dir() else []
    if not names:
        raise InputError("no class folder", where=root, mend="expected one folder of images a class")
    return names


def balanced_samples(samples: list[tuple[str, int]], count: int, seed: int) -> list[tuple[str, int]]:
    """``count`` of the samples with classes as even as they can be, in their order.

    Args:
        samples: Paths and class indices.
        count: How many; all if there are fewer.
        seed: Draws them.
    """
    generator = epoch_generator(seed, 0, bits=32)
    shuffled = torch.randperm(len(samples), generator=generator).tolist()
    seen: Counter[int] = Counter()
    ranked = []
    for place in shuffled:
        label = samples[place][1]
        ranked.append((seen[label], label, place))
        seen[label] += 1
    return [samples[place] for place in sorted(place for _, _, place in sorted(ranked)[:count])]


class _Samples(Dataset[Any]):
    """Decoded and cropped samples (bytes, lighting, label), addressed by (epoch, index)."""

    def __init__(
        self, samples: list[tuple[str, int]], pipeline: Any, seed: int, deviation: float, decoder: str
    ) -> None:
        self.samples, self.pipeline, self.seed = samples, pipeline, seed
        self.deviation, self.decoder = deviation, decoder

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """The sample, or what is wrong with it: a process that raised would add its traceback to the message."""
        epoch, index = key
        path, label = self.samples[index]
        try:
            image = decode(path, self.decoder)
        except InputError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            # The generator itself: torch.manual_seed also visits every other device, which costs more than the draws.
            torch.default_generator.manual_seed(mixed_seed(self.seed, epoch, index, bits=32))
            pixels = self.pipeline(image)
            return pixels, lighting(self.deviation) if self.deviation > 0 else None, label


def _collate(samples: list[Any]) -> Any:
    """Bytes (B, 3, H, W), lighting (B, 3) or None, labels (B,); or the first error."""
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    pixels, light, labels = zip(*samples, strict=True)
    return torch.stack(pixels), None if light[0] is None else torch.stack(light), torch.tensor(labels)


class _Plan(Sampler[list[tuple[int, int]]]):
    """The keys of the epoch that is due, a list a batch; lets the loading processes live on between epochs."""

    def __init__(self, batches: FolderBatches) -> None:
        self.batches, self.epoch = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for chosen in self.batches.indices(self.epoch):
            yield [(self.epoch, sample) for sample in chosen.tolist()]


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
        classes: The class folders to use, in the order of their labels; None for all by name.
        skip: Files to leave out, as ``<class>/<file>``.
        count: Use so many, classes as even as can be, whatever ``seed``; 0 for all.
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
        classes: Sequence[str] | None = None,
        skip: Collection[str] = (),
        count: int = 0,
    ) -> None:
        self.classes = list(classes) if classes is not None else class_folders(Path(root))
        self.samples = list_samples(Path(root), self.classes, frozenset(skip))
        if count:
            self.samples = balanced_samples(self.samples, count, SUBSET_SEED)
        if training and batch_size > len(self.samples):
            raise InputError(
                f"batch_size {batch_size} is larger than the set", allowed=f"1 to {len(self.samples)}"
            )
        if batch_size % world:
            raise InputError(f"batch_size {batch_size} does not divide over {world} processes")
        self.crop, self.batch_size, self.training, self.seed = crop, batch_size, training, seed
        self.rank, self.world, self.device, self.workers = rank, world, torch.device(device), workers
        self.mean, self.std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        self._open()

    def _open(self) -> None:
        pipeline = training_pipeline(self.crop) if self.training else evaluation_pipeline(self.crop)
        deviation = self.crop.lighting if self.training else 0.0
        self.plan = _Plan(self)
        self.loader: DataLoader[Any] = DataLoader(
            _Samples(self.samples, pipeline, self.seed, deviation, self.crop.decoder),
            batch_sampler=self.plan,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_collate,
            persistent_workers=self.workers > 0,
            prefetch_factor=PREFETCH if self.workers else None,
            pin_memory=self.device.type == "cuda",
            # it draws a seed for its workers, which would advance the generator that drop path draws from
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        full, rest = divmod(len(self.samples), self.batch_size)
        return full + (rest > 0 and not self.training)

    def plain(self) -> FolderBatches:
        """All images of the set, in the order of their names and cropped in the centre."""
        other = copy.copy(self)
        other.training = False
        other._open()
        return other

    def indices(self, epoch: int) -> Iterator[Tensor]:
        """Which images (places in ``samples``) the batches of :meth:`epoch` hold.

        A process without an image of the last, shorter batch of an evaluation has one batch less.
        """
        count = len(self.samples)
        order = torch.arange(count)
        if self.training:
            order = torch.randperm(count, generator=epoch_generator(self.seed, epoch, bits=32))
        for index in range(len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            first, last = (len(chosen) * r // self.world for r in (self.rank, self.rank + 1))
            if first < last:
                yield chosen[first:last]

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches (B, 3, size, size) of torch's default type, channels last, and their labels (B,)."""
        self.plan.epoch = epoch
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            pixels, light, labels = batch
            pixels = pixels.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            x = transforms.functional.to_dtype(pixels, self.mean.dtype, scale=True)
            if light is not None:
                x += light.to(self.device, non_blocking=True)[:, :, None, None]
            yield x.sub_(self.mean).div_(self.std), labels.to(self.device, non_blocking=True)
