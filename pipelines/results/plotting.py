"""The look of the figures; SVG files that repeat byte for byte and are readable on light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from search.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, GRID = "#33383f", "#6f7782", "#d7dbe0"
DARK = {INK: "#e3e7ec", QUIET: "#9aa3ad", GRID: "#3a4149"}
"""What the inks become where the reader prefers dark pages."""
COLOURS = ("#2f7fc1", "#e07b39", "#2a9d74", "#a26bd0", "#d1495b", "#8c7a3f", "#4aa3b5", "#b5651d", "#7d8791")
CHILD, PARENT = COLOURS[0], COLOURS[1]
SALT = "cp-nas-dcp-nas"
FONT = "system-ui, 'DejaVu Sans', sans-serif"
STYLE: Any = {
    "svg.hashsalt": SALT,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.h_pad": 0.09,
}


@contextmanager
def canvas(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house style with a grid of axes (2-D array), closed afterwards. Sizes in inches."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options
        )
        try:
            yield figure, axes
        finally:
            pyplot.close(figure)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as SVG: no date, fixed identifiers, transparent, with colours for dark pages."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    write_text(path, _finish(buffer.getvalue()))


def _finish(svg: str) -> str:
    svg = svg[svg.index("<svg") :].replace("'DejaVu Sans'", FONT)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda match: match.group(1) + style, svg, count=1)


def inline(svg: str, prefix: str, label: str) -> str:
    """An SVG for the middle of a page: own identifiers and styles, and a label for screen readers."""
    head, tag, rest = svg[svg.index("<svg") :].partition(">")
    rest = re.sub(r'\bid="', f'id="{prefix}-', rest)
    rest = re.sub(r'((?:xlink:)?href)="#', rf'\1="#{prefix}-', rest).replace("url(#", f"url(#{prefix}-")
    rest = re.sub(
        r"(?<=<style>).*?(?=</style>)", lambda found: _scoped(found[0], prefix), rest, flags=re.DOTALL
    )
    head = head.replace(' role="img"', "")
    return f'{head} role="img" id="{prefix}" aria-label="{escape(label)}"{tag}{rest}'


def _scoped(css: str, prefix: str) -> str:
    """Style rules that reach only into the element of that id; ``@media`` lines stay."""

    def scoped(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        return ",".join(f"#{prefix} {part.strip()}" for part in found[2].split(",")) + "{"

    return re.sub(r"(@[^{]*\{)|([^{}@]+)\{", scoped, css)


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """One colour a name, the same in every figure that shows the same names."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(sorted(set(names)))}


def spare(axes: Sequence[Axes]) -> None:
    """Hide axes that nothing was drawn on."""
    for axis in axes:
        axis.set_visible(False)
