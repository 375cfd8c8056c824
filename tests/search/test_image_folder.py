"""Image folders: what a batch holds, whoever loads it, and what becomes of files that are odd or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from search.errors import InputError
from search.image_folder import MEAN, STD, CropSettings, FolderBatches, decode, lighting

CROP = CropSettings(size=32, resize=40, smallest_crop=0.35, lighting=0.1, decoder="pil")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir()
        for index in range(4):
            coarse = random.integers(0, 256, (6 + number, 8, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((80, 60 + index), Image.Resampling.BICUBIC)
            smooth.save(folder / name / f"{index}.{'png' if index == 3 else 'JPEG'}", quality=95)
    return folder


def batches(root: Path, size: int = 4, training: bool = True, **more: Any) -> FolderBatches:
    crop = CROP.model_copy(update=more.pop("crop", {}))
    return FolderBatches(root, crop, size, training=training, seed=3, **more)


def test_a_training_batch_is_what_the_pipeline_makes_of_each_image_alone(root: Path) -> None:
    """The arithmetic that is put off to the device is that of the published transforms, bit for bit."""
    both = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, scale=(0.35, 1.0), antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
        ]
    )
    made = batches(root)
    for epoch in (0, 5):
        for (x, y), chosen in zip(made.epoch(epoch), made.indices(epoch), strict=True):
            for got, label, index in zip(x, y, chosen.tolist(), strict=True):
                path, wanted = made.samples[index]
                seed = int(np.random.SeedSequence((3, epoch, index)).generate_state(1)[0])
                torch.manual_seed(seed)
                image = both(Image.open(path).convert("RGB")) + lighting(0.1).view(3, 1, 1)
                assert torch.equal(got, transforms.Normalize(MEAN, STD)(image))
                assert label == wanted


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_generator_of_drop_path(root: Path, workers: int) -> None:
    """Else workers would decide numbers, and a training that goes on would draw others."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    made = batches(root, workers=workers)
    for epoch in (0, 1):
        assert len(list(made.epoch(epoch))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_centre_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValidationError, match="resize 32 is less than size 64"):
        CropSettings(size=64, resize=32, smallest_crop=1.0, lighting=0.0, decoder="pil")


def test_an_evaluation_batch_is_the_centre_in_the_order_of_the_names(root: Path) -> None:
    pipeline = transforms.Compose(
        [
            transforms.Resize(40, interpolation=InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(32),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(MEAN, STD),
        ]
    )
    made = batches(root, size=5, training=False)
    x = torch.cat([x for x, _ in made.epoch(0)])
    files = sorted(root.glob("*/*"))
    assert [path for path, _ in made.samples] == [str(path) for path in files]
    assert torch.equal(x, torch.stack([pipeline(Image.open(path).convert("RGB")) for path in files]))
    for rank in (0, 1):
        plain = batches(root, rank=rank, world=2).plain()
        for (part, _), chosen in zip(plain.epoch(0), plain.indices(0), strict=True):
            assert len(chosen) == 2 and torch.equal(part, x[chosen])


def test_loading_processes_change_nothing(root: Path) -> None:
    here, there = batches(root), batches(root, workers=2)
    for epoch in (0, 1):
        for (x, y), (other, label) in zip(here.epoch(epoch), there.epoch(epoch), strict=True):
            assert torch.equal(x, other) and torch.equal(y, label)
    next(there.epoch(7))  # an epoch that is left early
    assert torch.equal(next(there.epoch(1))[0], next(here.epoch(1))[0])


def test_processes_share_a_batch(root: Path) -> None:
    whole = list(batches(root).epoch(2))
    parts = [list(batches(root, rank=rank, world=2).epoch(2)) for rank in (0, 1)]
    for (x, y), *halves in zip(whole, *parts, strict=True):
        assert torch.equal(x, torch.cat([half[0] for half in halves]))
        assert torch.equal(y, torch.cat([half[1] for half in halves]))
    with pytest.raises(InputError, match="batch_size 4 does not divide over 3 processes"):
        batches(root, world=3)


def test_an_evaluation_with_fewer_images_left_than_processes(root: Path) -> None:
    """Every image is tested once, and a process without one has a batch less."""
    count = len(batches(root).samples)
    world = next(n for n in range(2, count + 1) if count % n > 0)
    parts = [list(batches(root, world, False, rank=rank, world=world).epoch(0)) for rank in range(world)]
    assert sum(len(y) for part in parts for _, y in part) == count
    assert len({len(part) for part in parts}) == 2
    assert all(len(y) for part in parts for _, y in part)


def test_both_decoders_see_the_same_picture(root: Path) -> None:
    """Their JPEG arithmetic and their resampling differ by a level or two out of 255, not by more on average."""
    one, other = (
        torch.cat([x for x, _ in batches(root, training=False, crop={"decoder": name}).epoch(0)])
        for name in ("pil", "torchvision")
    )
    assert not torch.equal(one, other)
    assert (one - other).abs().mean() < 2 / 255 / min(STD)


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_greyscale_and_cmyk_become_rgb(tmp_path: Path, decoder: str, mode: str) -> None:
    Image.new("RGB", (40, 40), (200, 200, 200)).convert(mode).save(tmp_path / "x.jpg", quality=95)
    pixels = np.asarray(transforms.functional.to_image(decode(str(tmp_path / "x.jpg"), decoder)))
    assert pixels.shape == (3, 40, 40)
    assert np.abs(pixels.astype(int) - 200).max() <= 3


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_one_line_that_names_it(tmp_path: Path, decoder: str, workers: int) -> None:
    (tmp_path / "ant").mkdir()
    path = tmp_path / "ant" / "x.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:900])
    made = batches(tmp_path, 1, training=False, workers=workers, crop={"decoder": decoder})
    with pytest.raises(InputError) as error:
        next(made.epoch(0))
    assert str(error.value).startswith(f"{path}: cannot be read as a picture (")
    assert "Traceback" not in str(error.value)


def test_which_files_and_classes_are_used(root: Path, tmp_path: Path) -> None:
    made = batches(root, 2, classes=["bee", "cat"], skip=["bee/0.JPEG", "cat/3.png"])
    assert [Path(path).name for path, label in made.samples if label == 0] == ["1.JPEG", "2.JPEG", "3.png"]
    assert [Path(path).name for path, label in made.samples if label == 1] == ["0.JPEG", "1.JPEG", "2.JPEG"]
    with pytest.raises(InputError, match="no class folder wasp"):
        batches(root, classes=["wasp"])
    with pytest.raises(InputError, match="ant: a class without images; allowed: .jpg"):
        batches(root, classes=["ant"], skip=[f"ant/{index}.JPEG" for index in range(3)] + ["ant/3.png"])
    with pytest.raises(InputError, match="no class folder; expected one folder of images a class"):
        batches(tmp_path)
    with pytest.raises(InputError, match="batch_size 13 is larger than the set; allowed: 1 to 12"):
        batches(root, 13)
