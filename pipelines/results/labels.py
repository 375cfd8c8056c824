"""Labels of points in a figure: near their own marker, over nothing else, on a leader line where they had to move."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelines.results.plotting import QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RINGS = 7
"""How many lines of text a label may move away from its marker."""
ANGLES = 16
"""Directions tried on each ring."""
LETTER, LINE = 0.6, 1.15
"""Width of a letter and height of a line, in font sizes."""


Line = tuple[tuple[float, float], tuple[float, float]]


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share an area."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def distance(self, x: float, y: float) -> float:
        """From a point to the nearest point of the rectangle."""
        return math.hypot(max(self.x0 - x, 0, x - self.x1), max(self.y0 - y, 0, y - self.y1))

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to a point."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)


class Placed(NamedTuple):
    """A label's rectangle, and whether it needs a line to its marker."""

    box: Box
    led: bool


def annotate(axis: Axes, points: Sequence[tuple[float, float, str]], size: float) -> None:
    """Label the points of an axis, each once where several of one name lie on each other.

    Widths are estimated from the number of letters, so the result depends on nothing but the points.
    """
    scale = axis.figure.dpi / 72
    frame = axis.get_window_extent()
    pixels = [(float(x), float(y)) for x, y in axis.transData.transform([point[:2] for point in points])]
    names = [point[2] for point in points]
    found = place(pixels, names, Box(frame.x0, frame.y0, frame.x1, frame.y1), size * scale)
    for at, label in found.items():
        x, y = pixels[at]
        before = label.box.x1 < x
        edge, middle = (label.box.x1 if before else label.box.x0) - x, (label.box.y0 + label.box.y1) / 2 - y
        axis.annotate(
            names[at],
            points[at][:2],
            xytext=(edge / scale, middle / scale),
            textcoords="offset points",
            fontsize=size,
            ha="right" if before else "left",
            va="center",
        )
        if label.led:
            end = label.box.nearest(x, y)
            axis.annotate(
                "",
                points[at][:2],
                xytext=((end[0] - x) / scale, (end[1] - y) / scale),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 2, "shrinkB": 3},
            )


def place(
    markers: Sequence[tuple[float, float]], names: Sequence[str], frame: Box, size: float
) -> dict[int, Placed]:
    """The place of each label: first of those that can touch their marker, then of the others.

    A label touches its marker at the right, left, above or below where that is free and no other marker is as near;
    otherwise it moves outwards, over no marker and no label, and its line crosses none either. Where nothing is free
    within :data:`RINGS`, it covers as little as possible: no marker stays without its name.

    Args:
        markers: In pixels.
        names: The labels; of equal ones whose markers overlap only the first is placed.
        frame: Labels stay inside.
        size: Of the font, in pixels.
    """
    around = size / 2
    taken = [Box(x - around, y - around, x + around, y + around) for x, y in markers]
    first = {
        at: names[at]
        for at in range(len(names))
        if not any(names[other] == names[at] and taken[other].overlaps(taken[at]) for other in range(at))
    }

    def crowd(at: int) -> tuple[int, float, float]:
        near = sum(math.dist(markers[at], other) < 6 * size for other in markers)
        return -near, -markers[at][1], markers[at][0]

    found: dict[int, Placed] = {}
    lines: list[Line] = []
    for led, at in itertools.product((False, True), sorted(first, key=crowd)):
        if at in found:
            continue
        apart = [number for number in range(len(names)) if names[number] != names[at]]
        beside = [box for box in (taken[number] for number in apart) if not box.overlaps(taken[at])]
        beside += [label.box for label in found.values()]
        others = [markers[number] for number in apart]
        tried = list(_candidates(markers[at], len(names[at]) * LETTER * size, size, led))
        free = [one for one in tried if _free(one, markers[at], others, beside, lines, frame, size)]
        if free:
            found[at] = free[0]
        elif led:
            found[at] = min(tried, key=lambda one: _faults(one, beside, frame))
        if at in found and led:
            lines.append((markers[at], found[at].box.nearest(*markers[at])))
    return found


def _candidates(marker: tuple[float, float], width: float, size: float, led: bool) -> Iterator[Placed]:
    """Beside the marker, above, below; or with a line, around it, further and further away."""
    x, y = marker
    height = LINE * size

    def box(centre_x: float, centre_y: float) -> Box:
        return Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)

    if not led:
        beside = 0.7 * size
        yield Placed(box(x + beside + width / 2, y), led)
        yield Placed(box(x - beside - width / 2, y), led)
        yield Placed(box(x, y + beside + height / 2), led)
        yield Placed(box(x, y - beside - height / 2), led)
        return
    for ring in range(1, RINGS + 1):
        for step in range(ANGLES):
            angle = 2 * math.pi * step / ANGLES
            reach = (ring + 1) * height
            way_x, way_y = math.cos(angle) * (reach + width / 2), math.sin(angle) * reach
            yield Placed(box(x + way_x, y + way_y), led)


def _free(
    placed: Placed,
    marker: tuple[float, float],
    others: Sequence[tuple[float, float]],
    taken: Sequence[Box],
    lines: Sequence[Line],
    frame: Box,
    size: float,
) -> bool:
    box = placed.box
    if not _inside(box, frame):
        return False
    if any(box.overlaps(other) for other in taken) or any(_near(line, box) == 0 for line in lines):
        return False
    if placed.led:
        line = (marker, box.nearest(*marker))
        clear = all(_near(line, other) > 0 for other in taken)
        return clear and all(_near(line, Box(x, y, x, y)) > size / 3 for x, y in others)
    return all(box.distance(x, y) > box.distance(*marker) + size / 4 for x, y in others)


def _faults(placed: Placed, taken: Sequence[Box], frame: Box) -> int:
    """How much is wrong with a place, where none is free: what it covers, and if it leaves the frame."""
    return sum(placed.box.overlaps(other) for other in taken) + 100 * (not _inside(placed.box, frame))


def _inside(box: Box, frame: Box) -> bool:
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def _near(line: Line, box: Box) -> float:
    """How near a line comes to a rectangle, at one of 20 points on it."""
    (x0, y0), (x1, y1) = line
    steps = [step / 20 for step in range(1, 21)]
    return min(box.distance(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in steps)
