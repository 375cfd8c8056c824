"""Pictures as every task sees them: one decoder (Pillow) decides what is a picture and what its pixels are.

Pixels are RGB, 8 bits. Greyscale, palettes and CMYK are converted, alpha is dropped, 16-bit greyscale keeps its
high byte (Pillow itself would cut it to white). A picture is taken as it is stored: an EXIF orientation turns it
only where the caller asks for that.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from search.errors import InputError
from search.file_kinds import HEAD, kind_of_bytes

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")
"""Endings of picture files, in either case."""
ORIENTATION = 0x0112
"""EXIF's tag: 1 as stored, 2 to 8 mirrored or turned, 5 to 8 with width and height exchanged."""
TAIL = 64
"""Bytes at a file's end that show whether it is whole."""


@dataclass(frozen=True)
class Facts:
    """What opening a picture file showed.

    Attributes:
        width, height: In stored pixels; 0 if it could not be opened.
        mode: Pillow's mode of the stored pixels, such as ``RGB``, ``L``, ``CMYK``, ``I;16``.
        orientation: EXIF's, 1 to 8; 1 where there is none.
        digest: sha256 (hex) of the file, or of its length, beginning and end where only those were read.
        damage: Why it cannot be used, or None.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    orientation: int = 1
    digest: str = ""
    damage: str | None = None

    @property
    def exchanged(self) -> bool:
        """Whether its EXIF orientation exchanges width and height."""
        return self.orientation >= 5


@dataclass
class Listing:
    """The entries of a folder, sorted by name.

    Attributes:
        pictures: Names of picture files.
        dangling: Names of links to pictures that lead nowhere.
        hidden: Entries whose name begins with a dot.
        others: Names of files with other endings.
        folders: Names of folders.
    """

    pictures: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    hidden: int = 0
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture's and is not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def list_folder(folder: str | Path) -> Listing:
    """The entries of a folder by kind; only names are read.

    Raises:
        InputError: The folder cannot be read, or the name of a picture is not UTF-8.
    """
    found = Listing()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"the folder cannot be read ({error.strerror})", where=shown(folder)) from None
    for entry in entries:
        if entry.name.startswith("."):
            found.hidden += 1
        elif entry.is_dir():
            found.folders.append(entry.name)
        elif not is_picture(entry.name):
            found.others.append(entry.name)
        elif entry.is_file():
            found.pictures.append(utf8(entry.name, folder))
        else:
            found.dangling.append(utf8(entry.name, folder))
    return found


def utf8(name: str, folder: str | Path) -> str:
    """The name, if it can be written into a JSON file.

    Raises:
        InputError: It is not UTF-8; shown with its bytes escaped.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the file name '{shown(name)}' is not UTF-8",
            where=shown(folder),
            mend="rename it, for instance with `convmv -f latin1 -t utf8`",
        ) from None
    return name


def shown(path: str | Path) -> str:
    """A path for a message: bytes that are not UTF-8 as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_picture(path: str | Path, *, turn: bool = False) -> Image.Image:
    """Read one picture as RGB.

    Args:
        path: The file.
        turn: Turn and mirror it as its EXIF orientation says.

    Raises:
        InputError: The file is missing, damaged or no picture.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(ImageOps.exif_transpose(image) if turn else image)
    except (
        Exception
    ) as error:  # Pillow's plugins raise whatever they meet: OSError, SyntaxError, struct.error, ...
        raise InputError(f"cannot be read as a picture ({_reason(error, path)})", where=shown(path)) from None


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode with 8 bits a channel, RGB.

    Raises:
        ValueError: Its pixels are 32-bit numbers without a known range.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("32-bit pixels have no known range; save it with 8 or 16 bits")
        image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits")
    elif "transparency" in image.info:
        image = image.convert("RGBA")  # the way to RGB on which Pillow does not warn
    return image.convert("RGB")


def inspect(path: str | Path, *, decode: bool = True) -> Facts:
    """Open a picture file and say what it is; never raises for a damaged one.

    Args:
        path: The file.
        decode: Decode all of it. Otherwise its header and end are read, and it is decoded only where its end is
            not that of a whole file.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read() if decode else _ends(stream)
    except OSError as error:
        return Facts(damage=f"cannot be read ({error.strerror})")
    if not content:
        return Facts(damage=kind_of_bytes(content))
    digest = hashlib.sha256(content).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content) if decode else path) as image:
                if decode or not _looks_whole(content):
                    as_rgb(image)
                return Facts(*image.size, image.mode, _orientation(image), digest)
    except Exception as error:  # see open_picture
        return Facts(digest=digest, damage=f"cannot be read as a picture ({_reason(error, path, content)})")


def _ends(stream: io.BufferedReader) -> bytes:
    """Beginning and end of a file, and its length between them."""
    head = stream.read(HEAD)
    length = stream.seek(0, os.SEEK_END)
    stream.seek(max(length - TAIL, 0))
    return head + (b"" if not length else length.to_bytes(8, "big") + stream.read())


def _looks_whole(content: bytes) -> bool:
    """Whether a JPEG or PNG ends as one; of other formats an end says nothing."""
    end = content[-TAIL:]
    if content.startswith(b"\xff\xd8"):
        return end.rstrip(b"\0").endswith(b"\xff\xd9")
    return content.startswith(b"\x89PNG") and b"IEND" in end


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _reason(error: Exception, path: str | Path, content: bytes | None = None) -> str:
    """Why a picture cannot be read; of a file that is none, what it is instead."""
    if isinstance(error, Image.UnidentifiedImageError):
        if content is None:
            with Path(path).open("rb") as stream:
                content = stream.read(HEAD)
        return f"it is {kind_of_bytes(content[:HEAD])}".replace("it is begins", "it begins")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
