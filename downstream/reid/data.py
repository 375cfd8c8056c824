"""Re-identification data sets as Torchreid data sets, from a user's folder.

Official archives go through Torchreid's own classes; any other folder in Market-1501's naming through ours,
since Torchreid's class for Market-1501 takes only .jpg, cameras 1 to 6 and identities up to 1501.
Torchreid lists files in the order of the file system; here they are sorted, so that a seed means the same
batches on every machine. It also retries a broken picture for ever; here that is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from downstream.reid import layout
from downstream.reid.compat import quiet, torchreid
from downstream.reid.layout import Picture, Splits
from downstream.reid.settings import Layout
from search.errors import InputError

Row = tuple[str, int, int]

_REGISTERED: dict[str, Path] = {}

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "market1501": (layout.TRAIN, layout.GALLERY, layout.QUERY),
    "msmt17": ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt"),
    "cuhk03": (
        "cuhk03_release/cuhk-03.mat",
        "cuhk03_new_protocol_config_detected.mat",
        "cuhk03_new_protocol_config_labeled.mat",
    ),
}

_INNER: Mapping[str, tuple[str, ...]] = {
    "market1501": ("Market-1501-v15.09.15",),
    "msmt17": ("MSMT17_V1", "MSMT17_V2"),
    "cuhk03": (),
}


def open_picture(path: str) -> Image.Image:
    """Read one picture as RGB.

    Raises:
        InputError: The file is missing or broken.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise InputError(f"cannot be read as a picture ({error})", where=path) from None


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
    if _REGISTERED.get(name) == folder:
        return name
    cls = dataset_class(kind, folder)
    try:
        torchreid().data.register_image_dataset(name, cls)
    except ValueError:
        raise InputError(f"the data set name {name!r} is taken", mend="choose another name") from None
    _REGISTERED[name] = folder
    return name


def key(name: str, root: str | Path, kind: Layout) -> str:
    """Register under a name of our own making, one for each folder and layout, and return that name."""
    digest = hashlib.sha256(f"{kind}:{Path(root).resolve()}".encode()).hexdigest()[:8]
    return register_folder(f"{name}-{digest}", root, kind)


def dataset_class(kind: Layout, root: Path) -> type:
    """A Torchreid ``ImageDataset`` class bound to ``root``.

    Raises:
        InputError: A folder or a list of the layout is missing, or a file name is wrong.
    """
    if kind == "folder":
        layout.check(layout.read(root), where=root)
        return _folder_class(root)
    folder = locate(kind, root)
    return _official_class(kind, folder)


def locate(kind: str, root: Path) -> Path:
    """The folder that Torchreid's class expects, given that folder, its parent or its only child.

    Raises:
        InputError: None of them holds what the layout demands.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=root)
    inner = _INNER[kind]
    bases = [root.parent] if root.name in inner else [root, root / kind]
    direct = [""] if kind != "msmt17" else []
    for base in bases:
        for name in (*inner, *direct):
            if all((base / name / item).exists() for item in _REQUIRED[kind]):
                return base
    listed = ", ".join(f"{prefix}/" for prefix in inner)
    raise InputError(
        f"not the layout of {kind}",
        where=root,
        allowed=f"a folder with {', '.join(_REQUIRED[kind])}" + (f" (in {listed})" if inner else ""),
    )


def _official_class(kind: str, folder: Path) -> type:
    """Torchreid's own class for ``folder``: it never downloads, lists in sorted order and reads safely."""
    names = {"market1501": "Market1501", "msmt17": "MSMT17", "cuhk03": "CUHK03"}
    base = getattr(torchreid().data.datasets, names[kind])

    def process_dir(self: Any, *args: Any, **kwargs: Any) -> list[Row]:
        return _relabelled(sorted(base.process_dir(self, *args, **kwargs)), kwargs.get("relabel", False))

    members: dict[str, Any] = {"dataset_dir": str(folder), "dataset_url": None, "__getitem__": _get_item}
    if hasattr(base, "process_dir"):
        members["process_dir"] = process_dir
    return type(base.__name__, (base,), members)


def _folder_class(root: Path) -> type:
    base = torchreid().data.ImageDataset

    def init(self: Any, root: str = "", **kwargs: Any) -> None:
        splits = layout.read(folder)
        train = _relabelled([_row(picture) for picture in splits.train], True)
        base.__init__(self, train, _rows(splits.query), _rows(splits.gallery), **kwargs)

    folder = root
    return type("MarketFolder", (base,), {"__init__": init, "__getitem__": _get_item, "_junk_pids": [0, -1]})


def _row(picture: Picture) -> Row:
    return (str(picture.path), picture.pid, picture.camera - 1)


def _rows(split: Sequence[Picture]) -> list[Row]:
    return [_row(picture) for picture in split if picture.pid != -1]


def _relabelled(rows: list[Row], relabel: bool) -> list[Row]:
    """Identities 0, 1, ... in order of the old ones, as a classifier needs them; or the rows as they are."""
    if not relabel:
        return rows
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
    folder = _REGISTERED[name]
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
    return Splits(*(_pictures(rows) for rows in (dataset.train, dataset.query, dataset.gallery)))


def _pictures(rows: Sequence[Sequence[Any]]) -> list[Picture]:
    return [Picture(Path(row[0]), cast(int, row[1]), row[2] + 1) for row in rows]
