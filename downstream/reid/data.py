"""Re-identification data sets as Torchreid data sets, from a user's folder.

Market-1501's and MSMT17's layouts are read here: Torchreid's class for Market-1501 takes only .jpg, cameras 1 to 6
and identities up to 1501. CUHK03, whose pictures lie in a MATLAB file, goes through Torchreid's own class.
Torchreid lists files in the order of the file system; here they are sorted, so that a seed means the same
batches on every machine. It also retries a broken picture for ever; here that is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from downstream.reid import layout, msmt17
from downstream.reid.compat import quiet, torchreid
from downstream.reid.layout import Picture, Splits
from search.errors import InputError
from search.pictures import open_picture

if TYPE_CHECKING:
    from downstream.reid.settings import Layout

Row = tuple[str, int, int]

_REGISTERED: dict[str, tuple[Path, Layout]] = {}
_OF_SPLITS: set[str] = set()

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "cuhk03": (
        "cuhk03_release/cuhk-03.mat",
        "cuhk03_new_protocol_config_detected.mat",
        "cuhk03_new_protocol_config_labeled.mat",
    ),
    "msmt17": ("list_train.txt", "list_query.txt", "list_gallery.txt"),
    "market1501": (layout.TRAIN, layout.GALLERY, layout.QUERY),
}

_INNER: Mapping[str, tuple[str, ...]] = {
    "cuhk03": (),
    "msmt17": ("MSMT17_V2", "MSMT17_V1"),
    "market1501": ("Market-1501-v15.09.15",),
}
_READERS: Mapping[str, Callable[[Path], Splits]] = {
    "folder": layout.read,
    "market1501": layout.read,
    "msmt17": msmt17.read,
}


def register_folder(name: str, root: str | Path, kind: Layout = "folder") -> str:
    """Register a data set with Torchreid under ``name``, for ``ImageDataManager(sources=name)`` and scripts.

    Args:
        name: The name; Torchreid's own names are taken.
        root: The folder.
        kind: Its layout.

    Returns:
        The name.

    Raises:
        InputError: The layout is not as it should be, or the name belongs to another folder already.
    """
    folder = Path(root).resolve()
    if _REGISTERED.get(name, (None,))[0] == folder:
        return name
    cls = dataset_class(kind, folder)
    try:
        torchreid().data.register_image_dataset(name, cls)
    except ValueError:
        raise InputError(f"the data set name {name!r} is taken", mend="choose another name") from None
    _REGISTERED[name] = (folder, kind)
    return name


def key(name: str, root: str | Path, kind: Layout) -> str:
    """Register under a name of our own making, one for each folder and layout, and return that name."""
    digest = hashlib.sha256(f"{kind}:{Path(root).resolve()}".encode()).hexdigest()[:8]
    return register_folder(f"{name}-{digest}", root, kind)


def register_splits(name: str, splits: Splits) -> str:
    """Register splits that were read already, under a name with a hash of their pictures, and return that name."""
    rows = [[_rows(split) for split in (splits.train, splits.query, splits.gallery)]]
    key = f"{name}-{hashlib.sha256(repr(rows).encode()).hexdigest()[:8]}"
    if key not in _OF_SPLITS:
        torchreid().data.register_image_dataset(key, _class_of(splits))
        _OF_SPLITS.add(key)
    return key


def limited(splits: Splits, train_images: int, test_images: int) -> Splits:
    """The splits with so many training pictures and queries, identities as even as can be; 0 for all.

    The gallery stays whole: a smaller one would be an easier test.
    """
    return replace(
        splits,
        train=_chosen(splits.train, train_images) if train_images else splits.train,
        query=_chosen(splits.query, test_images) if test_images else splits.query,
    )


def _chosen(pictures: Sequence[Picture], count: int) -> list[Picture]:
    from search.image_folder import SUBSET_SEED, balanced_samples  # not before a limit asks for torch

    kept = balanced_samples([(str(picture.path), picture.pid) for picture in pictures], count, SUBSET_SEED)
    paths = {path for path, _ in kept}
    return [picture for picture in pictures if str(picture.path) in paths]


def dataset_class(kind: Layout, root: Path) -> type:
    """A Torchreid ``ImageDataset`` class bound to ``root``.

    Raises:
        InputError: A folder or a list of the layout is missing, or a file name is wrong.
    """
    if kind == "cuhk03":
        return _official_class(locate(kind, root))
    splits = read(kind, root)
    return _class_of(splits)


def read(kind: Layout, root: Path) -> Splits:
    """The checked splits of a folder in one of the layouts; no picture is opened.

    Raises:
        InputError: The folder is not as it should be.
    """
    if kind == "cuhk03":
        return check(key("cuhk03", root, kind))
    folder = root if kind == "folder" and (root / layout.TRAIN).is_dir() else _located(kind, root)
    splits = _READERS[kind](folder)
    layout.check(splits, where=folder)
    return splits


def _located(kind: Layout, root: Path) -> Path:
    try:
        return locate("market1501" if kind == "folder" else kind, root)
    except InputError:
        if kind != "folder":
            raise
        return root  # whose own reader says which of the folders is missing


def find_layout(root: Path) -> Layout:
    """The layout of a folder, by what lies in it.

    Raises:
        InputError: It has none of the known layouts.
    """
    for kind in _REQUIRED:
        try:
            locate(kind, root)
        except InputError:
            continue
        return cast("Layout", kind)
    needed = "; ".join(f"{kind}: {', '.join(items)}" for kind, items in _REQUIRED.items())
    what = "no known layout" if root.is_dir() else "no such folder"
    raise InputError(what, where=root, allowed=f"a folder with all of one of these: {needed}")


def locate(kind: str, root: Path) -> Path:
    """The folder that holds what a layout demands: ``root``, its child or grandchild of a known name.

    Raises:
        InputError: None of them does.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=root)
    for base in (root, root / kind):
        for name in ("", *_INNER[kind]):
            if all((base / name / item).exists() for item in _REQUIRED[kind]):
                return base / name
    listed = ", ".join(f"{prefix}/" for prefix in _INNER[kind])
    raise InputError(
        f"not the layout of {kind}",
        where=root,
        allowed=f"a folder with {', '.join(_REQUIRED[kind])}" + (f" (in {listed})" if listed else ""),
    )


def _official_class(folder: Path) -> type:
    """Torchreid's own class for CUHK03 in ``folder``: it never downloads, and reads pictures safely."""
    base = torchreid().data.datasets.CUHK03
    members = {"dataset_dir": str(folder), "dataset_url": None, "__getitem__": _get_item}
    return type(base.__name__, (base,), members)


def _class_of(splits: Splits) -> type:
    base = torchreid().data.ImageDataset

    def init(self: Any, root: str = "", **kwargs: Any) -> None:
        train = _relabelled(_rows(splits.train))
        base.__init__(self, train, _rows(splits.query), _rows(splits.gallery), **kwargs)

    return type("ReidFolder", (base,), {"__init__": init, "__getitem__": _get_item})


def _rows(split: Sequence[Picture]) -> list[Row]:
    return [(str(picture.path), picture.pid, picture.camera - 1) for picture in split]


def _relabelled(rows: list[Row]) -> list[Row]:
    """Identities 0, 1, ... in order of the old ones, as a classifier needs them."""
    labels = {pid: label for label, pid in enumerate(sorted({pid for _, pid, _ in rows}))}
    return [(path, labels[pid], camera) for path, pid, camera in rows]


def _get_item(self: Any, index: int) -> dict[str, Any]:
    path, pid, camera, dataset = self.data[index]
    image: Any = open_picture(path)
    if self.transform is not None:
        image = self._transform_image(self.transform, self.k_tfm, image)
    return {"img": image, "pid": pid, "camid": camera, "impath": path, "dsetid": dataset}


def check(name: str) -> Splits:
    """Load a registered data set as Torchreid does and check its splits.

    Args:
        name: A name that :func:`register_folder` or :func:`key` returned.

    Raises:
        InputError: See :func:`downstream.reid.layout.check`; or the folder lacks a file of its layout.
    """
    folder, kind = _REGISTERED[name]
    if kind != "cuhk03":
        return read(kind, folder)
    splits = _load(name, folder)
    layout.check(splits, where=folder)
    return splits


def _load(name: str, folder: Path) -> Splits:
    with quiet():
        try:
            dataset = torchreid().data.datasets.init_image_dataset(name, root="")
        except (RuntimeError, AssertionError, AttributeError, ValueError, IndexError) as error:
            raise InputError(f"Torchreid cannot read this folder: {error}", where=folder) from None
        except ModuleNotFoundError as error:
            raise InputError(f"this data set needs the package {error.name!r}", where=folder) from None
    train, query, gallery = (_pictures(rows) for rows in (dataset.train, dataset.query, dataset.gallery))
    return Splits(train, query, gallery)


def _pictures(rows: Sequence[Sequence[Any]]) -> list[Picture]:
    return [Picture(Path(row[0]), cast(int, row[1]), row[2] + 1) for row in rows]
