from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from search.data import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    Augmentation,
    Batches,
    Images,
    augment,
    load_cifar10,
    split,
)
from search.errors import InputError
from search.manifest import read_manifest
from tests.search import tiny

NONE = Augmentation(crop_padding=0, flip=False, cutout=0)


def test_split_is_disjoint_balanced_and_seeded() -> None:
    data = tiny.images(160)
    tagged = Images(torch.arange(160).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).to(torch.uint8), data.labels, 4)
    first, second = split(tagged, (60, 80), seed=1)
    ids = [set(part.pixels[:, 0, 0, 0].tolist()) for part in (first, second)]
    assert not ids[0] & ids[1]
    assert torch.bincount(first.labels).tolist() == [15] * 4
    assert torch.bincount(second.labels).tolist() == [20] * 4
    assert torch.equal(split(tagged, (60, 80), seed=1)[0].pixels, first.pixels)
    assert not torch.equal(split(tagged, (60, 80), seed=2)[0].pixels, first.pixels)


def test_split_refuses_more_than_there_is() -> None:
    with pytest.raises(InputError, match="at most 160"):
        split(tiny.images(160), (100, 61), seed=0)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    data, how = tiny.images(64), Augmentation(crop_padding=2, flip=True, cutout=4)

    def pixels(seed: int, epoch: int) -> torch.Tensor:
        return torch.cat([x for x, _ in Batches(data, 16, seed=seed, augmentation=how).epoch(epoch)])

    assert torch.equal(pixels(0, 3), pixels(0, 3))
    assert not torch.equal(pixels(0, 3), pixels(0, 4))
    assert not torch.equal(pixels(0, 3), pixels(1, 3))


@pytest.mark.parametrize("augmentation", [NONE, None])
@pytest.mark.parametrize("world", [1, 2])
def test_indices_are_the_places_of_the_images(augmentation: Augmentation | None, world: int) -> None:
    data = tiny.images(22)
    whole = torch.cat([x for x, _ in Batches(data, 22).epoch(0)])
    for rank in range(world):
        made = Batches(data, 8, seed=3, augmentation=augmentation, rank=rank, world=world)
        for (x, y), chosen in zip(made.epoch(5), made.indices(5), strict=True):
            assert torch.equal(x, whole[chosen]) and torch.equal(y, data.labels[chosen])
        plain = made.plain()
        assert len(torch.cat(list(plain.indices(1)))) * world == 22
        for (x, _), chosen in zip(plain.epoch(1), plain.indices(1), strict=True):
            assert torch.equal(x, whole[chosen])


def test_processes_together_see_the_global_batches() -> None:
    data, how = tiny.images(64), Augmentation(crop_padding=2, flip=True, cutout=4)
    whole = list(Batches(data, 16, seed=5, augmentation=how).epoch(2))
    parts = [
        list(Batches(data, 16, seed=5, augmentation=how, rank=rank, world=2).epoch(2)) for rank in (0, 1)
    ]
    for index, (x, y) in enumerate(whole):
        assert torch.equal(x, torch.cat([parts[0][index][0], parts[1][index][0]]))
        assert torch.equal(y, torch.cat([parts[0][index][1], parts[1][index][1]]))


def test_evaluation_sees_every_image_once_in_order() -> None:
    data = tiny.images(50)
    labels = torch.cat([y for _, y in Batches(data, 16).epoch(0)])
    assert torch.equal(labels, data.labels)


def test_normalisation() -> None:
    data = tiny.images(8)
    ((x, _),) = Batches(data, 8).epoch(0)
    expected = (
        data.pixels.double() / 255 - torch.tensor(CIFAR10_MEAN).view(1, 3, 1, 1).double()
    ) / torch.tensor(CIFAR10_STD).view(1, 3, 1, 1).double()
    assert torch.allclose(x.double(), expected, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_crops_are_windows_of_the_padded_image_and_flips_mirror_them() -> None:
    data = tiny.images(32).pixels
    generator = torch.Generator().manual_seed(0)
    shifted, holes = augment(data, Augmentation(crop_padding=2, flip=True, cutout=0), generator)
    assert holes is None
    padded = torch.nn.functional.pad(data, (2, 2, 2, 2))
    seen_mirror = set()
    for image, source in zip(shifted, padded, strict=True):
        windows = {
            (mirror, dy, dx): (
                source[:, dy : dy + 16, dx : dx + 16].flip(-1)
                if mirror
                else source[:, dy : dy + 16, dx : dx + 16]
            )
            for mirror in (False, True)
            for dy in range(5)
            for dx in range(5)
        }
        match = [key for key, window in windows.items() if torch.equal(window, image)]
        assert match
        seen_mirror.add(match[0][0])
    assert seen_mirror == {False, True}


def test_cutout_sets_one_square_to_the_mean() -> None:
    data = tiny.images(32)
    plain = next(Batches(data, 32, seed=1, augmentation=NONE).epoch(0))[0]
    cut = next(
        Batches(data, 32, seed=1, augmentation=Augmentation(crop_padding=0, flip=False, cutout=6)).epoch(0)
    )[0]
    changed = (plain != cut).any(dim=1)
    assert (cut[changed.unsqueeze(1).expand_as(cut)] == 0).all()
    assert changed.sum(dim=(1, 2)).max() == 36
    assert changed.sum(dim=(1, 2)).min() >= 9


def test_missing_data_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m pipelines.prepare"):
        read_manifest(tmp_path / "cifar10")
    with pytest.raises(InputError, match=r"train_images.npy is missing"):
        load_cifar10(tmp_path, "train")


def test_statistics_are_those_of_cifar10() -> None:
    folder = Path("data/cifar10")
    if not folder.exists():
        pytest.skip("CIFAR-10 is not prepared here (dvc repro prepare_cifar10)")
    pixels = np.load(folder / "train_images.npy", mmap_mode="r")
    sums, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(pixels), 10000):
        part = pixels[start : start + 10000].astype(np.float64) / 255
        sums += part.sum(axis=(0, 1, 2))
        squares += (part**2).sum(axis=(0, 1, 2))
    mean = sums / (len(pixels) * 1024)
    std = np.sqrt(squares / (len(pixels) * 1024) - mean**2)
    assert mean == pytest.approx(CIFAR10_MEAN, abs=1e-6)
    assert std == pytest.approx(CIFAR10_STD, abs=1e-6)
