"""Reads COCO JSON as people have it: ids of any kind and order, sizes as text, missing areas and ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.datasets.annotated import Annotated, Source, flag, number, size
from pipelines.datasets.coco import Box
from pipelines.datasets.layout import listed
from search.errors import InputError, nearest
from search.files import read_json
from search.pictures import shown

Json = dict[str, Any]
OTHER_CLASSES = "of other classes"


def read(
    root: Path, splits: dict[str, list[str]], classes: Sequence[str] | None
) -> tuple[dict[str, Source], list[str], list[str]]:
    """Read the annotation files of the splits; no picture is opened.

    Args:
        root: The data set's folder.
        splits: Of each split, annotation file and picture folder, relative to ``root``; ``train`` first.
        classes: The category names to use, in order; None: those of the training file.

    Returns:
        The splits, the class names in order, and what is worth saying.

    Raises:
        InputError: For whatever cannot be read in one way alone; names the entry.
    """
    files = {split: (root / file, _file(root / file)) for split, (file, _) in splits.items()}
    for split, (_, folder) in splits.items():
        if not (root / folder).is_dir():
            raise InputError(f"no such folder, the pictures of {split}", where=root / folder)
    notes: list[str] = []
    names = {split: _categories(path, content, notes) for split, (path, content) in files.items()}
    order = _class_order(files, names, classes, notes)
    sources = {}
    for split, (path, content) in files.items():
        mend = "a bbox is [x, y, width, height] in pixels; cut or remove it"
        sources[split] = Source(splits[split][1], mend=mend)
        _read_split(sources[split], root, path, content, names[split], order)
        if split != "train" and classes is None:
            _refuse_unknown(path, content, names[split], order)
    return sources, order, notes


def _file(path: Path) -> Json:
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"no list {key!r} in it", where=path, allowed="COCO JSON: images, annotations, categories"
            )
        for place, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                kind = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
                fields = {"categories": '{"id": 1, "name": "cat"}'}.get(key, "an object {...}")
                raise InputError(f"{kind} {place} is {entry!r:.60}", where=path, allowed=fields)
    return content


def _categories(path: Path, content: Json, notes: list[str]) -> dict[Any, str]:
    """The name of each category id, in the file's order; of equal names those without a box are dropped."""
    found: dict[Any, str] = {}
    for entry in content["categories"]:
        identity = _identity(entry, "id", "category", path)
        name = str(_field(entry, "name", "category", path)).strip()
        if not name:
            raise InputError(f"category {identity} has an empty name", where=path)
        if identity in found:
            raise InputError(f"two categories have the id {identity}: {found[identity]}, {name}", where=path)
        found[identity] = name
    used = {_plain(annotation.get("category_id")) for annotation in content["annotations"]}
    for name, count in Counter(found.values()).items():
        same = [identity for identity, other in found.items() if other == name]
        if count > 1:
            kept = [identity for identity in same if identity in used] or same[:1]
            if len(kept) > 1:
                raise InputError(
                    f"the categories with ids {', '.join(map(str, kept))} have the same name {name!r}, and boxes",
                    where=path,
                    mend="rename one of them",
                )
            for identity in set(same) - set(kept):
                del found[identity]
                notes.append(
                    f"{path.name}: category {identity} has the name {name!r} of another and no box: dropped"
                )
    return found


def _class_order(
    files: dict[str, tuple[Path, Json]],
    names: dict[str, dict[Any, str]],
    classes: Sequence[str] | None,
    notes: list[str],
) -> list[str]:
    order = [name.strip() for name in classes] if classes else list(names["train"].values())
    for split, (path, _) in files.items():
        there = list(names[split].values())
        missing = set(order) - set(there)
        if missing and (split == "train" or not set(order) & set(there)):
            close = nearest(min(missing), there)
            raise InputError(
                f"no category {listed(missing)}",
                where=path,
                allowed=", ".join(there),
                mend=f"did you mean {close!r}?" if close else "set data.detection.classes in params.yaml",
            )
        if missing:
            notes.append(f"{path.name} does not list the category {listed(missing)}")
    return order


def _refuse_unknown(path: Path, content: Json, names: dict[Any, str], order: list[str]) -> None:
    for place, annotation in enumerate(content["annotations"]):
        name = names.get(_plain(annotation.get("category_id")))
        if name is not None and name not in order:
            raise InputError(
                f"{_called(annotation, place)}: the training file has no category {name!r}",
                where=path,
                allowed=", ".join(order),
                mend="to leave it out, set data.detection.classes in params.yaml to the names to use",
            )


def _read_split(
    source: Source, root: Path, path: Path, content: Json, names: dict[Any, str], order: list[str]
) -> None:
    folder = root / source.folder
    pictures: dict[Any, Annotated] = {}
    for entry in content["images"]:
        identity = _identity(entry, "id", "image", path)
        if identity in pictures:
            raise InputError(
                f"two images have the id {identity}: {pictures[identity].name}, {entry.get('file_name')}",
                where=path,
                mend="number the images of joined files anew, image_id of the annotations too",
            )
        name = _file_name(entry, folder, path)
        written = size(entry.get("width"), entry.get("height"), f"image {identity}: ", path)
        number_of_its_own = identity if isinstance(identity, int) else None
        pictures[identity] = Annotated(name, folder / name, path, written, identity=number_of_its_own)
    if any(picture.identity is None for picture in pictures.values()):
        source.made["image ids that are text: numbered"] = len(pictures)
        for picture in pictures.values():
            picture.identity = None
    source.pictures = list(pictures.values())
    twice = len(pictures) - len({picture.name for picture in source.pictures})
    if twice:
        source.made["images with the file name of another: used as they are"] = twice
    _read_boxes(source, path, content, pictures, names, order)


def _read_boxes(
    source: Source,
    path: Path,
    content: Json,
    pictures: dict[Any, Annotated],
    names: dict[Any, str],
    order: list[str],
) -> None:
    labels = {identity: order.index(name) for identity, name in names.items() if name in order}
    seen: set[Any] = set()
    for place, entry in enumerate(content["annotations"]):
        what = _called(entry, place)
        image, category = (_identity(entry, key, what, path) for key in ("image_id", "category_id"))
        if image not in pictures:
            raise InputError(f"{what}: no image has its image_id {image}", where=path)
        if category not in names:
            raise InputError(
                f"{what}: no category has its category_id {category}",
                where=path,
                allowed=", ".join(f"{number} ({name})" for number, name in names.items()),
            )
        identity = _plain(entry.get("id"))
        if identity is None:
            source.made["annotation ids that are missing: numbered"] += 1
        elif identity in seen:
            source.made["annotation ids that are repeated: numbered"] += 1
        seen.add(identity)
        if not isinstance(entry.get("area"), int | float) or entry["area"] <= 0:
            source.made["areas that are missing or 0: width x height"] += 1
        edges = _edges(entry, what, path)
        marks = {key: _mark(entry, key, what, path) for key in ("iscrowd", "ignore", "difficult")}
        if category not in labels:
            source.left_out[OTHER_CLASSES] += 1
            continue
        box = Box(*edges, labels[category], marks["iscrowd"], marks["ignore"] or marks["difficult"])
        pictures[image].boxes.append((box, what))


def _edges(entry: Json, what: str, path: Path) -> tuple[float, float, float, float]:
    box = _field(entry, "bbox", what, path)
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(edge) for edge in box):
        raise InputError(f"{what}: bbox {box!r:.80} is not [x, y, width, height]", where=path)
    for edge in box:
        number(edge, f"{what}: a value of bbox {box}", path)
    return (box[0], box[1], box[2], box[3])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mark(entry: Json, key: str, what: str, path: Path) -> bool:
    found = flag(entry.get(key))
    if found is None:
        raise InputError(f"{what}: {key} is {entry[key]!r:.60}", where=path, allowed="0, 1")
    return found


def _file_name(entry: Json, folder: Path, path: Path) -> str:
    name = _field(entry, "file_name", "image", path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"image {entry.get('id')}: file_name is {name!r:.60}, not a name", where=path)
    if "\\" in name and not (folder / name).is_file():
        name = name.replace("\\", "/")
    last = name.rpartition("/")[2]
    if not (folder / name).is_file():
        link = "the link leads nowhere" if (folder / name).is_symlink() else "no such picture"
        raise InputError(
            f"{link}, though {path} names it",
            where=shown(folder / name),
            mend=f"{shown(folder / last)} is there: file_name is relative to the picture folder of data.detection"
            if last != name and (folder / last).is_file()
            else None,
        )
    return name


def _called(entry: Json, place: int) -> str:
    return f"annotation {entry['id']}" if entry.get("id") is not None else f"annotation number {place + 1}"


def _field(entry: Json, key: str, what: str, path: Path) -> Any:
    if entry.get(key) is None:
        named = entry.get("id", entry.get("file_name"))
        raise InputError(f"{what if ' ' in what else f'{what} {named}'} has no {key!r}", where=path)
    return entry[key]


def _identity(entry: Json, key: str, what: str, path: Path) -> int | str:
    found = _plain(_field(entry, key, what, path))
    if found is None:
        raise InputError(f"{what}: {key} {entry[key]!r:.60} is neither a number nor a text", where=path)
    return found


def _plain(value: Any) -> int | str | None:
    """An id: a whole number, also one written as text or with a point, else its text; None if it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else str(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return value
