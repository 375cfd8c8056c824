"""Reads the year folders of a VOCdevkit as people have them: any picture ending, blank lines, names with spaces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from downstream.detection.data import VOC_CLASSES
from pipelines.datasets.annotated import Annotated, Source, flag, number, size
from pipelines.datasets.coco import Box
from search.errors import InputError, nearest
from search.pictures import EXTENSIONS, is_picture

PICTURES = "JPEGImages"
ENCODINGS = {"utf-16": "UTF-16", "gb18030": "GBK", "shift_jis": "Shift-JIS", "latin-1": "Latin-1"}
"""What a split file that is not UTF-8 may be, in the order of the guesses."""


def read(
    root: Path, splits: dict[str, list[str]], classes: Sequence[str] | None
) -> tuple[dict[str, Source], list[str], list[str]]:
    """Read the annotations of the splits; no picture is opened.

    Args:
        root: The data set's folder.
        splits: Of each split, its year folders and split files, e.g. ``VOC2007/trainval``; several are joined.
        classes: The class names in order; None: the 20 of VOC.

    Returns:
        The splits, the class names in order, and what is worth saying.

    Raises:
        InputError: For whatever cannot be read in one way alone; names the file.
    """
    order = [name.strip() for name in classes] if classes else list(VOC_CLASSES)
    sources = {}
    for split, entries in splits.items():
        sources[split] = Source(".", origin=1)
        for entry in entries:
            year, _, part = entry.rpartition("/")
            _read_part(sources[split], root, year, part, order)
    return sources, order, []


def _read_part(source: Source, root: Path, year: str, part: str, classes: Sequence[str]) -> None:
    folder = root / year
    if not folder.is_dir():
        raise InputError(
            "no such folder",
            where=folder,
            mend="set data.detection.folder in params.yaml to your data set's folder",
        )
    there = _by_stem(folder / PICTURES)
    seen: set[str] = set()
    for identity in _names(folder, part):
        if identity in seen:
            source.made["names that a split file repeats: used once"] += 1
            continue
        seen.add(identity)
        path = folder / "Annotations" / f"{identity}.xml"
        annotation = _parse(path)
        name = there.get(identity)
        if name is None:
            missing = folder / PICTURES / f"{identity}.jpg"
            what = "the link leads nowhere" if missing.is_symlink() else "no such picture"
            raise InputError(
                f"{what}, though {path} names it", where=missing, allowed=f"endings {', '.join(EXTENSIONS)}"
            )
        place = f"{year}/{PICTURES}/{name}"
        entry = Annotated(place, root / place, path, _size(annotation, path))
        entry.boxes = [
            (_box(source, element, path, classes), str(path)) for element in annotation.findall("object")
        ]
        source.pictures.append(entry)


def _names(folder: Path, part: str) -> Iterator[str]:
    """The names in a split file; a second column, as in VOC's files of one class, is dropped."""
    path = folder / "ImageSets" / "Main" / f"{part}.txt"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem))
        raise InputError("no such split file", where=path, allowed=there or "ImageSets/Main/<split>.txt")
    for line in _text(path).splitlines():
        words = line.split()
        if not words:
            continue
        guesses = [line.strip(), " ".join(words[:-1]) or words[0], words[0]]
        guesses += [guess.rpartition(".")[0] for guess in guesses if is_picture(guess)]
        known = (guess for guess in guesses if (folder / "Annotations" / f"{guess}.xml").is_file())
        yield next(known, words[0] if len(words) == 2 and words[1] in ("-1", "0", "1") else guesses[0])


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    called = next(name for encoding, name in ENCODINGS.items() if _decodes(content, encoding))
    raise InputError(
        f"is not UTF-8 but perhaps {called}", where=path, mend=f"iconv -f {called} -t UTF-8 {path.name}"
    )


def _decodes(content: bytes, encoding: str) -> bool:
    if encoding == "utf-16" and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return False
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _by_stem(folder: Path) -> dict[str, str]:
    """The picture of each name without its ending; of several the first kind of :data:`EXTENSIONS`."""
    try:
        names = [entry.name for entry in os.scandir(folder) if is_picture(entry.name) and entry.is_file()]
    except OSError as error:
        raise InputError(f"the folder cannot be read ({error.strerror})", where=folder) from None
    names.sort(key=lambda name: (EXTENSIONS.index(os.path.splitext(name)[1].lower()), name), reverse=True)
    return {os.path.splitext(name)[0]: name for name in names}


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError("no such annotation, though its split names it", where=path) from None
    except ElementTree.ParseError as error:
        raise InputError(f"not valid XML ({error})", where=path) from None
    except (ValueError, LookupError, OSError) as error:  # an encoding that the parser does not know
        raise InputError(f"cannot be read ({error})", where=path, mend="save it as UTF-8") from None


def _size(annotation: ElementTree.Element, path: Path) -> tuple[int, int] | None:
    width, height = ((annotation.findtext(f"size/{edge}") or "").strip() for edge in ("width", "height"))
    return size(width, height, "size/", path)


def _box(source: Source, entry: ElementTree.Element, path: Path, classes: Sequence[str]) -> Box:
    name = (entry.findtext("name") or "").strip()
    if name not in classes:
        close = nearest(name, classes)
        hint = "set data.detection.classes in params.yaml to the names of your classes"
        raise InputError(
            f"class {name!r} is not in the list",
            where=path,
            allowed=", ".join(classes),
            mend=f"did you mean {close!r}? Otherwise {hint}" if close else hint,
        )
    edges = ("xmin", "ymin", "xmax", "ymax")
    # whole pixels counted from 1, as the development kit reads them
    left, top, right, bottom = (
        int(number(entry.findtext(f"bndbox/{edge}"), f"bndbox/{edge}", path)) for edge in edges
    )
    text = entry.findtext("difficult")
    difficult = flag(text)
    if difficult is None:
        source.made[f"difficult that is {str(text).strip()!r:.40}: read as 0"] += 1
    return Box(left - 1, top - 1, right - left, bottom - top, classes.index(name), difficult=bool(difficult))
