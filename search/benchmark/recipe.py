"""How every architecture of a benchmark is trained: one recipe for all, in both precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from search.data import Augmentation, Images, split
from search.errors import InputError
from search.network import NetworkConfig, Stem
from search.settings import Name, Seed, Settings
from search.space import SPACES, Space, named
from search.style import OperationStyle


class Recipe(Settings):
    """One recipe; two tables are comparable only where it is equal.

    Attributes:
        name: Of the table and its folder.
        space: A named space (:data:`search.space.SPACES`).
        size: Side of the pictures: 32, or 16 by the mean of 2 x 2 pixels.
        channels, cells, stem: Size of the network.
        style: Fields of :class:`search.operations.OperationStyle` but ``binary``, which both values take.
        train_images, validation_images: Disjoint class-balanced parts of the training set.
        test_images: 0 for all; testing happens once, after the last epoch.
        split_seed: Draws the parts.
        epochs, batch_size: Of every training.
        learning_rate, final_learning_rate: Adam's, by a cosine over all steps.
        augmentation: Of the training images.
        seeds: Every architecture is trained with seed 0. ``best`` of them by validation accuracy as Child, and
            ``drawn`` more at random, are trained with seeds 1 to ``seeds`` - 1 too, and measured every epoch.
        best, drawn: How many.
        draw_seed: Draws them.
    """

    name: Name
    space: str
    size: int
    channels: int = Field(ge=2, le=1024)
    cells: int = Field(ge=3, le=100)
    stem: Stem
    style: dict[str, Any]
    train_images: int = Field(ge=10, le=50_000)
    validation_images: int = Field(ge=10, le=50_000)
    test_images: int = Field(ge=0, le=10_000)
    split_seed: Seed
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=50_000)
    learning_rate: float = Field(gt=0, le=10)
    final_learning_rate: float = Field(ge=0, le=10)
    augmentation: Augmentation
    seeds: int = Field(ge=1, le=1000)
    best: int = Field(ge=0)
    drawn: int = Field(ge=0)
    draw_seed: Seed

    @field_validator("space")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SPACES:
            raise ValueError(f"no search space {value!r}; allowed: {', '.join(SPACES)}")
        return value

    @field_validator("size")
    @classmethod
    def _sizes(cls, value: int) -> int:
        if value not in (16, 32):
            raise ValueError(f"{value} pixels; allowed: 16, 32")
        return value

    @property
    def searched(self) -> Space:
        """The space."""
        return named(self.space)

    def config(self, binary: bool, classes: int) -> NetworkConfig:
        """The network of a Child, or of a Parent."""
        try:
            style = OperationStyle(**self.style, binary=binary)
        except TypeError as error:
            raise InputError(str(error), where=f"benchmark {self.name!r}, style") from None
        return NetworkConfig(self.channels, self.cells, classes, self.stem, style)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises:
        InputError: With the first field that is wrong.
    """
    import yaml
    from pydantic import ValidationError

    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError("no such recipe", where=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not valid YAML ({error})".replace("\n", " "), where=path) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {first['msg']}", where=path) from None


def prepare_images(recipe: Recipe, train: Images, test: Images) -> tuple[Images, Images, Images]:
    """The training, validation and test images of a recipe, at its size."""
    trained, validation = split(train, (recipe.train_images, recipe.validation_images), recipe.split_seed)
    if recipe.test_images:
        (test,) = split(test, (recipe.test_images,), recipe.split_seed)
    factor = 32 // recipe.size
    return shrink(trained, factor), shrink(validation, factor), shrink(test, factor)


def shrink(images: Images, factor: int) -> Images:
    """Pictures of 1 / ``factor`` the size: integer means of ``factor`` x ``factor`` pixels, halves rounded up.

    Integers alone, so that every machine trains on the same pixels.
    """
    if factor == 1:
        return images
    count, colours, height, width = images.pixels.shape
    blocks = images.pixels.view(count, colours, height // factor, factor, width // factor, factor)
    sums: Tensor = blocks.sum(dim=(3, 5), dtype=torch.int32)
    area = factor * factor
    pixels = torch.div(sums + area // 2, area, rounding_mode="floor").to(torch.uint8)
    return Images(pixels, images.labels, images.classes, images.mean, images.std)
