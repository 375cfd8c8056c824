"""Torchreid's data manager with the strong baseline's augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision import transforms as T

from downstream.reid import data
from downstream.reid.compat import quiet, torchreid
from downstream.reid.layout import Splits
from downstream.reid.settings import Layout, ReidSettings
from search.errors import InputError

# ImageNet's channel statistics: what the backbone was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """A data set on disk: its name for the record, its folder and its layout."""

    name: str
    root: str
    layout: Layout


@dataclass(frozen=True)
class Loaders:
    """What an engine and the evaluation need.

    Attributes:
        manager: Torchreid's ``ImageDataManager``: batches of the source, query and gallery of the target.
        target: Torchreid's name of the data set that is tested on.
        train: Splits of the data set that is trained on.
        test: Splits of the data set that is tested on.
    """

    manager: Any
    target: str
    train: Splits
    test: Splits

    @property
    def identities(self) -> int:
        """Number of training identities."""
        return int(self.manager.num_train_pids)


def build(source: Source, target: Source | None, settings: ReidSettings, *, use_gpu: bool = False) -> Loaders:
    """Check both data sets and build Torchreid's data manager.

    Args:
        source: Trained on.
        target: Tested on; None: ``source``.
        settings: Sizes, augmentation, sampler.
        use_gpu: Pin memory for copies to a GPU.

    Raises:
        InputError: A data set is not as it should be, or too small for a batch of the settings.
    """
    train, test = (
        data.limited(
            data.read(place.layout, Path(place.root).absolute()), settings.train_images, settings.test_images
        )
        for place in (source, target or source)
    )
    names = [
        data.register_splits(place.name, splits)
        for place, splits in ((source, train), (target or source, test))
    ]
    _check_batch(train, settings, where=source.root)
    with quiet():
        manager = torchreid().data.ImageDataManager(
            root="",
            sources=names[0],
            targets=names[1],
            height=settings.height,
            width=settings.width,
            use_gpu=use_gpu,
            batch_size_train=settings.batch,
            batch_size_test=settings.test_batch,
            workers=settings.workers,
            num_instances=settings.images,
            train_sampler="RandomIdentitySampler" if settings.identity_sampler else "RandomSampler",
        )
    manager.train_loader.dataset.transform = augmentation(settings)
    return Loaders(manager, names[1], train, test)


def _check_batch(train: Splits, settings: ReidSettings, *, where: str) -> None:
    identities = len({picture.pid for picture in train.train})
    if settings.identity_sampler and identities < settings.identities:
        raise InputError(
            f"{identities} training identities, a batch wants {settings.identities} (reid.identities)",
            where=where,
        )
    if len(train.train) < settings.batch:
        raise InputError(
            f"{len(train.train)} training pictures, a batch wants {settings.batch} "
            "(reid.identities x reid.images)",
            where=where,
        )


def augmentation(settings: ReidSettings) -> T.Compose:
    """Resize, flip, pad and crop, normalise, erase: the order of the strong baseline.

    Torchreid's own list can only enlarge and crop, and erase with probability 1/2.
    """
    steps: list[Any] = [T.Resize((settings.height, settings.width))]
    if settings.flip:
        steps.append(T.RandomHorizontalFlip())
    if settings.pad:
        steps += [T.Pad(settings.pad), T.RandomCrop((settings.height, settings.width))]
    steps += [T.ToTensor(), T.Normalize(MEAN, STD)]
    if settings.erasing:
        erasing = torchreid().data.transforms.RandomErasing
        steps.append(erasing(probability=settings.erasing, mean=MEAN))
    return T.Compose(steps)


def preprocessing(height: int, width: int) -> T.Compose:
    """What a picture goes through before a trained model: resize, to [0, 1], normalise, as in Torchreid."""
    return T.Compose([T.Resize((height, width)), T.ToTensor(), T.Normalize(MEAN, STD)])
