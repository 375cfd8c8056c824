"""From annotations as they were read to the normalised file: every picture is opened, every box checked.

What is left out is counted by its reason; what was made up because the source lacks it is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.annotated import Annotated, Source
from pipelines.datasets.coco import AnnotationWriter, Box
from pipelines.datasets.layout import listed
from pipelines.datasets.manifest import ContentHash
from pipelines.datasets.opened import open_all, shared_note
from search.errors import InputError
from search.pictures import Facts, shown

TOLERANCE = 1.0
"""Pixels by which a box may leave its picture: VOC counts from 1, exporters round."""
SMALL = "pictures below data.detection.smallest_side"
NO_AREA, TINY, OUTSIDE = "without area", "below a pixel", "outside the picture"


@dataclass
class Normalised:
    """A checked detection data set.

    Attributes:
        files: The normalised annotation file of each split, as text.
        counts: Classes, pictures and boxes, for the manifest.
        left_out: What is not in the files, by split and reason.
        said: What was made up or is odd, a line each.
        sha256: Over the files and the pictures' content.
    """

    files: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    sha256: str = ""


def normalise(sources: dict[str, Source], classes: Sequence[str], smallest_side: int) -> Normalised:
    """Open the pictures and check the boxes of both splits.

    Args:
        sources: ``train`` and ``val`` as they were read.
        classes: The class names in order.
        smallest_side: Training pictures with a shorter side are left out.

    Raises:
        InputError: A picture is damaged or of another size than written, a box leaves its picture, or nothing is
            left to train on or to evaluate.
    """
    found = Normalised(counts={"classes": len(classes)})
    content, digests = ContentHash(), {}
    for split, source in sources.items():
        if not source.pictures:
            raise InputError(f"the {split} split has no picture")
        checked = _Split(source, training=split == "train", smallest_side=smallest_side)
        writer = AnnotationWriter(classes)
        for picture, facts in zip(source.pictures, open_all([p.path for p in source.pictures]), strict=True):
            checked.add(picture, facts, writer)
        _refuse_nothing(split, checked, writer, classes, smallest_side)
        digests[split] = checked.digests
        found.files[split] = writer.text()
        found.counts |= _counts(split, writer, checked.left_out)
        found.left_out[split] = dict(sorted(checked.left_out.items()))
        found.said += [f"{split}: {count} {what}" for what, count in sorted(source.made.items())]
        if absent := _without_box(writer, classes):
            found.said.append(f"{split}: no box of {listed(absent)}")
        content.text(found.files[split])
        for digest in checked.digests:
            content.text(digest)
    found.said += shared_note(digests, "train", "val")
    found.sha256 = content.hex()
    return found


class _Split:
    """The checks of one split."""

    def __init__(self, source: Source, *, training: bool, smallest_side: int) -> None:
        self.source, self.training, self.smallest_side = source, training, smallest_side
        self.left_out = Counter({f"boxes {reason}": count for reason, count in source.left_out.items()})
        self.digests: list[str] = []

    def add(self, picture: Annotated, facts: Facts, writer: AnnotationWriter) -> None:
        """Check one picture with its boxes and write what of it is used."""
        size, turn = self._size(picture, facts)
        kept = [box for box, what in picture.boxes if self._keep(box, what, size, picture.said_by)]
        if self.training and min(size) < self.smallest_side:
            self.left_out[SMALL] += 1
            self.left_out["boxes of small pictures"] += len(kept)
        elif self.training and all(box.ignored for box in kept):
            self.left_out["pictures without a box to train on"] += 1
            self.left_out["boxes marked crowd or difficult, of pictures without others"] += len(kept)
        else:
            self.digests.append(facts.digest)
            writer.add(picture.name, size, kept, identity=picture.identity, turn=turn)

    def _size(self, picture: Annotated, facts: Facts) -> tuple[tuple[int, int], bool]:
        """The size that the boxes are meant in, and whether the picture must be turned for it."""
        if facts.damage is not None:
            mend = "mend it, or leave it out of the annotations"
            raise InputError(facts.damage, where=shown(picture.path), mend=mend)
        if facts.mode.startswith(("I", "F")):
            self.source.made["pictures of 16 bits: their high byte is used"] += 1
        stored, turned = (facts.width, facts.height), (facts.height, facts.width)
        if picture.size is None:
            self.source.made["sizes that the annotations lack: taken from the picture"] += 1
            return stored, False
        if facts.exchanged and picture.size == turned != stored:
            self.source.made["pictures with an EXIF orientation, boxes in the turned picture"] += 1
            return turned, True
        if picture.size != stored:
            raise InputError(
                f"is {facts.width} x {facts.height}, {picture.said_by} says {picture.size[0]} x {picture.size[1]}",
                where=shown(picture.path),
                mend="its boxes belong to a picture of another size: put that one here, or scale them",
            )
        if facts.orientation != 1:
            sure = facts.exchanged and stored != turned
            self.source.made[
                "pictures with an EXIF orientation, boxes in the stored picture"
                + ("" if sure else f" (taken so, their size cannot tell: {shown(picture.name)} ...)")
            ] += 1
        return stored, False

    def _keep(self, box: Box, what: str, size: tuple[int, int], said_by: Path) -> bool:
        """Whether a box is used; counts why not."""
        right, bottom, origin = box.x + box.width, box.y + box.height, self.source.origin
        if box.width <= 0 or box.height <= 0:
            self.left_out[f"boxes {NO_AREA}"] += 1
            return False
        if (
            min(box.x, box.y) + origin < -TOLERANCE
            or right + origin > size[0] + TOLERANCE
            or bottom + origin > size[1] + TOLERANCE
        ):
            edges = ", ".join(f"{edge + origin:g}" for edge in (box.x, box.y, right, bottom))
            place = what if what == str(said_by) else f"{said_by}: {what}"
            raise InputError(
                f"{place}: box ({edges}) leaves its picture of {size[0]} x {size[1]}", mend=self.source.mend
            )
        if box.width < 1 or box.height < 1:
            self.left_out[f"boxes {TINY}"] += 1
            return False
        if min(right, size[0]) <= max(box.x, 0) or min(bottom, size[1]) <= max(box.y, 0):
            self.left_out[f"boxes {OUTSIDE}"] += 1
            return False
        return True


def _refuse_nothing(
    split: str, checked: _Split, writer: AnnotationWriter, classes: Sequence[str], smallest_side: int
) -> None:
    """Refuse a training split without a picture and a test split without a box that counts."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(checked.left_out.items()) if count)
    where = checked.source.pictures[0].said_by
    if split == "train" and not writer.images:
        small = checked.left_out[SMALL]
        raise InputError(
            f"no training picture is left ({reasons or 'no boxes'})",
            where=where,
            allowed=f"pictures with a box of {', '.join(classes)}",
            mend=f"data.detection.smallest_side {smallest_side} leaves out {small}: lower it"
            if small
            else None,
        )
    counted = [entry for entry in writer.annotations if not entry["iscrowd"]]
    if not counted:
        marked = len(writer.annotations)
        raise InputError(
            f"the {split} split has no box to evaluate ({marked} marked crowd or difficult; {reasons or 'no others'})",
            where=where,
            allowed=f"boxes of {', '.join(classes)} that are neither crowd nor difficult",
        )


def _without_box(writer: AnnotationWriter, classes: Sequence[str]) -> set[str]:
    there = {entry["category_id"] - 1 for entry in writer.annotations}
    return {name for label, name in enumerate(classes) if label not in there}


def _counts(split: str, writer: AnnotationWriter, left_out: Counter[str]) -> dict[str, int]:
    ignored = sum(entry["iscrowd"] for entry in writer.annotations)
    difficult = sum(entry["difficult"] for entry in writer.annotations)
    return {
        f"{split}_images": len(writer.images),
        f"{split}_boxes": len(writer.annotations),
        f"{split}_boxes_without_area": left_out[f"boxes {NO_AREA}"],
        f"{split}_boxes_crowd": ignored - difficult,
        f"{split}_boxes_difficult": difficult,
        f"{split}_left_out": sum(count for reason, count in left_out.items() if reason.startswith("boxes")),
    }
