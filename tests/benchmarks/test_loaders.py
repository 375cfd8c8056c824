"""Images a second that one core loads: ours, and torchvision's transforms as such code is usually written.

The pictures are synthetic, so that the benchmark needs no data: noise at several scales, stored as JPEG files of
ImageNet's usual size (about 100 kB each), and bytes of CIFAR-10's shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_pil_image

from search.data import CIFAR10_MEAN, CIFAR10_STD, Augmentation, Batches, Images
from search.image_folder import MEAN, STD, CropSettings, FolderBatches, decode, lighting
from tests.benchmarks.common import as_in_a_run

PICTURES, BATCH = 64, 32
HEIGHT, WIDTH, CROP = 375, 500, 224
LIGHTING = 0.1
SMALL, SMALL_BATCH, CUTOUT = 4096, 128, 16


def picture(generator: torch.Generator) -> Image.Image:
    """Noise at scales from 1 to 128 pixels, as fine as makes a file of ImageNet's usual length."""
    pixels = torch.zeros(3, HEIGHT, WIDTH)
    for octave in range(8):
        coarse = torch.randn(1, 3, HEIGHT // 2**octave + 2, WIDTH // 2**octave + 2, generator=generator)
        pixels += 0.4 * 1.15**octave * F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0]
    return to_pil_image(torch.sigmoid(pixels))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for index in range(PICTURES):
        folder = root / f"class{index % 4}"
        folder.mkdir(exist_ok=True)
        picture(generator).save(folder / f"{index:03d}.jpg", quality=90)
    return root


class UsualLighting:
    """Colour lighting of one image, a step of the usual chain."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image + lighting(LIGHTING)[:, None, None]


def usual_folder(root: Path) -> DataLoader[Any]:
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(CROP),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            UsualLighting(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return DataLoader(ImageFolder(str(root), chain), batch_size=BATCH, shuffle=True, drop_last=True)


def our_folder(root: Path, decoder: str) -> FolderBatches:
    crop = CropSettings(size=CROP, resize=256, smallest_crop=0.08, lighting=LIGHTING, decoder=decoder)  # type: ignore[arg-type]
    return FolderBatches(root, crop, BATCH, training=True, seed=0)


@pytest.mark.benchmark(group="image folder, synthetic JPEG 500x375 to 224x224, no loading process")
@pytest.mark.parametrize(
    "kind", ["usual", "ours-pil", "ours-torchvision", "decode-pil", "decode-torchvision"]
)
def test_image_folder(benchmark, kind: str, pictures: Path) -> None:
    as_in_a_run()
    name, _, decoder = kind.partition("-")
    if name == "usual":
        loader = usual_folder(pictures)
        read = lambda: sum(len(labels) for _, labels in loader)  # noqa: E731
    elif name == "ours":
        batches = our_folder(pictures, decoder)
        read = lambda: sum(len(labels) for _, labels in batches.epoch(0))  # noqa: E731
    else:
        paths = [str(path) for path in sorted(pictures.rglob("*.jpg"))]
        read = lambda: len([decode(path, decoder) for path in paths])  # noqa: E731
    benchmark.extra_info["baseline"] = "test_image_folder[usual]"
    benchmark.extra_info["images"] = PICTURES
    assert benchmark.pedantic(read, rounds=5, warmup_rounds=1) == PICTURES


class UsualImages(Dataset[Any]):
    """CIFAR-10 as torchvision hands it out: one PIL image at a time through a chain."""

    def __init__(self, images: Images, chain: Any) -> None:
        self.pixels, self.labels = images.pixels.permute(0, 2, 3, 1).numpy(), images.labels.tolist()
        self.chain = chain

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.chain(Image.fromarray(self.pixels[index])), self.labels[index]


class UsualCutout:
    """Cutout of one image, a step of the usual chain."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        y, x = torch.randint(0, image.shape[1], (2,)).tolist()
        half = CUTOUT // 2
        image[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0.0
        return image


@pytest.mark.benchmark(group="images in memory, 32x32: crop, flip, cutout")
@pytest.mark.parametrize("kind", ["usual", "ours"])
def test_images_in_memory(benchmark, kind: str) -> None:
    as_in_a_run()
    pixels = torch.randint(0, 256, (SMALL, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(SMALL) % 10, classes=10)
    if kind == "ours":
        augmentation = Augmentation(crop_padding=4, flip=True, cutout=CUTOUT)
        batches = Batches(images, SMALL_BATCH, augmentation=augmentation)
        read = lambda: sum(len(labels) for _, labels in batches.epoch(0))  # noqa: E731
    else:
        steps = [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD),
            UsualCutout(),
        ]
        loader = DataLoader(UsualImages(images, transforms.Compose(steps)), SMALL_BATCH, shuffle=True)
        read = lambda: sum(len(labels) for _, labels in loader)  # noqa: E731
    benchmark.extra_info["baseline"] = "test_images_in_memory[usual]"
    benchmark.extra_info["images"] = SMALL
    assert benchmark.pedantic(read, rounds=5, warmup_rounds=1) == SMALL
