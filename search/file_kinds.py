"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

HEAD = 512
"""Bytes that are looked at."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes checkpoints (.pth, .pt)"),
    (b"\x80\x02", "a pickle, as old torch.save writes checkpoints (.pth, .pt)"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\0\x05\x16\x07", "macOS's metadata of a file (AppleDouble)"),
)


def kind_of_bytes(head: bytes) -> str:
    """What a file that begins with these bytes is, in words; its first bytes themselves if nothing is known."""
    if not head:
        return "an empty file: half-copied?"
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if len(head) > 8 and head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        return "a safetensors file"
    text = head.decode("latin-1").strip("\xef\xbb\xbf\xff\xfe \t\r\n\0").lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "a web page (HTML), as a failed download leaves it"
    if text.startswith("<"):
        return "XML or HTML text"
    if text.startswith(("{", "[")):
        return "JSON text"
    if not any(head):
        return "nothing but zero bytes: half-copied?"
    return f"begins with the bytes {head[:8].hex(' ')}"


def kind_of(path: str | Path) -> str:
    """What a file is, in words; see :func:`kind_of_bytes`."""
    try:
        with Path(path).open("rb") as stream:
            return kind_of_bytes(stream.read(HEAD))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
