"""Drawings of a genotype: plain text, Graphviz DOT, and a self-contained SVG with a layout of our own.

The SVG's layout is layered from left to right and depends on nothing but the genotype: a node stands one
column to the right of its furthest input, its operations are stacked as labelled boxes in front of it, and a
state that is used further on runs through the columns between in a lane of its own. So no label can overlap
another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from search.genotype import INPUTS, Cell, Genotype, collapse

FAMILIES = {
    "sep_conv": ("separable convolution", "#1d5fbf", "#dbe9fb", "#8fbcff", "#17304f"),
    "dil_conv": ("dilated convolution", "#7a3fb5", "#ecdffa", "#cfa6ff", "#36214d"),
    "pool": ("pooling", "#a34d00", "#fde6d0", "#ffb474", "#4a2a10"),
    "skip": ("skip connection", "#1f6f3f", "#d9f0e0", "#86d9a4", "#17382a"),
    "none": ("none (zero)", "#57606a", "#eaeef2", "#aab4bf", "#2a3038"),
}
"""Operation families: what the legend says, then line and fill colour in light mode and in dark mode."""
TITLES = {"normal": "normal cell", "reduce": "reduction cell"}

_PILL = (112.0, 24.0)
_BOX = (44.0, 34.0)
_PILL_GAP = 8.0
_LANE = 12.0
_SEPARATION = 16.0
_CURVE = 54.0
_ENTRY = 30.0
_MARGIN = 24.0
_HEADING = 30.0


def family(operation: str) -> str:
    """The family of an operation: a key of :data:`FAMILIES`."""
    return next(key for key in FAMILIES if key in operation)


def state_name(state: int, nodes: int = 4) -> str:
    """What a state of a cell is called: c_{k-2}, c_{k-1}, nodes 0, 1, ..., c_k for their concatenation."""
    if state < INPUTS:
        return f"c_{{k-{INPUTS - state}}}"
    return "c_k" if state == INPUTS + nodes else str(state - INPUTS)


def _cells(genotype: Genotype) -> Iterator[tuple[str, Cell]]:
    yield "normal", genotype.normal
    yield "reduce", genotype.reduce


def to_text(genotype: Genotype) -> str:
    """The two cells as one equation a node, and the collapse diagnosis; several lines."""
    lines = [f"{genotype.name} ({genotype.hash[:12]})", genotype.source]
    for kind, cell in _cells(genotype):
        lines += ["", TITLES[kind]]
        for index, node in enumerate(cell):
            terms = (f"{edge.operation}({state_name(edge.source)})" for edge in node)
            lines.append(f"  {state_name(INPUTS + index)} = {' + '.join(terms)}")
        names = ", ".join(state_name(INPUTS + index) for index in range(len(cell)))
        lines.append(f"  c_k = concatenation of {names}")
    found = collapse(genotype)
    verdict = "collapsed" if found.collapsed else "not collapsed"
    share = f"{100 * found.parameter_free_share:.0f} % of its edges free of parameters"
    lines += ["", f"normal cell: {found.skip_connects} skip_connect, depth {found.depth}, {share}: {verdict}"]
    return "\n".join(lines) + "\n"


def to_dot(genotype: Genotype) -> str:
    """Both cells as clusters of one Graphviz digraph, for those who have ``dot``."""
    name = genotype.name.replace("\\", "\\\\").replace('"', '\\"')
    lines = [f'digraph "{name}" {{', "  rankdir=LR;"]
    lines.append('  node [shape=box, style=rounded, fontname="Helvetica"];')
    lines.append('  edge [fontname="Helvetica", fontsize=10];')
    for kind, cell in _cells(genotype):
        lines += [f"  subgraph cluster_{kind} {{", f'    label="{TITLES[kind]}";']
        output = INPUTS + len(cell)
        lines += [f'    {kind}_{state} [label="{state_name(state)}"];' for state in range(output + 1)]
        for index, node in enumerate(cell):
            for edge in node:
                colour = FAMILIES[family(edge.operation)][1]
                style = f'label="{edge.operation}", color="{colour}", fontcolor="{colour}"'
                lines.append(f"    {kind}_{edge.source} -> {kind}_{INPUTS + index} [{style}];")
        lines += [f"    {kind}_{state} -> {kind}_{output} [style=dashed];" for state in range(INPUTS, output)]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


@dataclass(frozen=True)
class _Layout:
    """Where things of one cell stand; y relative to the cell's top.

    Attributes:
        layers: Column of every state, the output included.
        rows: y of every state in its own column and of its lane in every later column it runs through.
        height: Height of the cell.
    """

    layers: dict[int, int]
    rows: dict[tuple[int, int], float]
    height: float

    @property
    def width(self) -> float:
        return self.right(max(self.layers.values()))

    def left(self, layer: int) -> float:
        """Where a column begins: at its operations, or at the box of the output, which has none."""
        pitch = _CURVE + _PILL[0] + _ENTRY + _BOX[0]
        return 0.0 if layer == 0 else _BOX[0] + (layer - 1) * pitch + _CURVE

    def box(self, state: int) -> float:
        """The left end of a state's box."""
        layer = self.layers[state]
        bare = layer == 0 or state == max(self.layers)
        return self.left(layer) + (0.0 if bare else _PILL[0] + _ENTRY)

    def right(self, layer: int) -> float:
        """Where a column ends."""
        bare = layer in (0, max(self.layers.values()))
        return self.left(layer) + _BOX[0] + (0.0 if bare else _PILL[0] + _ENTRY)


def _lay_out(cell: Cell) -> _Layout:
    output = INPUTS + len(cell)
    sources = {INPUTS + index: [edge.source for edge in node] for index, node in enumerate(cell)}
    sources[output] = list(range(INPUTS, output))
    layers = dict.fromkeys(range(INPUTS), 0)
    for state in range(INPUTS, output + 1):
        layers[state] = 1 + max(layers[source] for source in sources[state])
    ends = {
        state: max((layers[target] for target, used in sources.items() if state in used), default=0)
        for state in layers
    }
    rows: dict[tuple[int, int], float] = {}
    for layer in range(layers[output] + 1):
        items: list[tuple[float, float, int]] = []
        for state in layers:
            if layers[state] == layer:
                wanted = [rows[source, layer - 1] for source in sources.get(state, [])]
                default = state * (_BOX[1] + 4 * _SEPARATION)
                items.append((sum(wanted) / len(wanted) if wanted else default, _height(cell, state), state))
            elif layers[state] < layer < ends[state]:
                items.append((rows[state, layer - 1], _LANE, state))
        items.sort()
        for (_, _, state), y in zip(items, _spread([item[:2] for item in items]), strict=True):
            rows[state, layer] = y
    extents = [
        (y - half, y + half)
        for (state, layer), y in rows.items()
        for half in [(_height(cell, state) if layers[state] == layer else _LANE) / 2]
    ]
    top, bottom = min(low for low, _ in extents), max(high for _, high in extents)
    return _Layout(layers, {key: y - top for key, y in rows.items()}, bottom - top)


def _height(cell: Cell, state: int) -> float:
    count = len(cell[state - INPUTS]) if INPUTS <= state < INPUTS + len(cell) else 0
    return max(_BOX[1], count * (_PILL[1] + _PILL_GAP) - _PILL_GAP)


def _spread(items: list[tuple[float, float]]) -> list[float]:
    """Positions nearest to the wanted ones (least squares) at which items, in order, do not touch."""
    offsets = [0.0]
    for (_, before), (_, height) in zip(items, items[1:], strict=False):
        offsets.append(offsets[-1] + (before + height) / 2 + _SEPARATION)
    pools: list[tuple[float, int]] = []
    for (wanted, _), offset in zip(items, offsets, strict=True):
        pools.append((wanted - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (last, last_size), (previous, size) = pools.pop(), pools.pop()
            pools.append(((previous * size + last * last_size) / (size + last_size), size + last_size))
    starts = [mean for mean, size in pools for _ in range(size)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def to_svg(genotype: Genotype) -> str:
    """Both cells, one above the other, with a legend; follows the reader's light or dark mode."""
    layouts = {kind: _lay_out(cell) for kind, cell in _cells(genotype)}
    used = {family(edge.operation) for _, cell in _cells(genotype) for node in cell for edge in node}
    families = [key for key in FAMILIES if key in used]
    legend = _MARGIN * 2 + sum(_legend_width(key) for key in families)
    title = 2 * _MARGIN + 10.0 * len(genotype.name)
    width = max(legend, title, *(layout.width + 2 * _MARGIN for layout in layouts.values()))
    body, y = [_text(_MARGIN, 30, genotype.name, "title")], 44.0
    for kind, cell in _cells(genotype):
        body.append(_text(_MARGIN, y + 16, TITLES[kind], "heading"))
        body.append(f'<g transform="translate({_MARGIN:g} {y + _HEADING:g})">')
        body += _draw_cell(cell, layouts[kind])
        body.append("</g>")
        y += _HEADING + layouts[kind].height + _MARGIN
    body += _draw_legend(families, y + 4)
    size = f'viewBox="0 0 {width:g} {y + 40:g}" width="{width:g}" height="{y + 40:g}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(genotype.name)}: normal and reduction cell</title>",
        f"<desc>{escape(to_text(genotype))}</desc>",
        f"<style>{_style()}</style>",
        '<rect class="paper" width="100%" height="100%" rx="8"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _draw_cell(cell: Cell, layout: _Layout) -> list[str]:
    output = INPUTS + len(cell)
    lines, shapes = [], []
    for state in range(output):
        lines += _trunk(state, layout)
    for index, node in enumerate(cell):
        state = INPUTS + index
        layer = layout.layers[state]
        y, x = layout.rows[state, layer], layout.left(layer)
        before = {edge: layout.rows[edge.source, layer - 1] for edge in node}
        stack = sorted(node, key=before.__getitem__)
        step = _PILL[1] + _PILL_GAP
        for place, edge in enumerate(stack):
            at = y + (place - (len(stack) - 1) / 2) * step
            kind = family(edge.operation)
            lines.append(_curve(layout.right(layer - 1), before[edge], x, at, "trunk"))
            # The boxes of a stack meet their node at separate points of its left side.
            enter = y + (place - (len(stack) - 1) / 2) * min(9.0, (_BOX[1] - 10) / max(1, len(stack) - 1))
            lines.append(_curve(x + _PILL[0], at, layout.box(state), enter, f"{kind} line"))
            shapes.append(_rect(x, at, _PILL, f"{kind} pill", 12))
            shapes.append(_text(x + _PILL[0] / 2, at + 4, edge.operation, f"{kind} label"))
    last = layout.layers[output]
    for state in range(INPUTS, output):
        start, end = layout.rows[state, last - 1], layout.rows[output, last]
        lines.append(_curve(layout.right(last - 1), start, layout.box(output), end, "trunk"))
    for state in range(output + 1):
        x, y = layout.box(state), layout.rows[state, layout.layers[state]]
        shapes.append(_rect(x, y, _BOX, "state" if INPUTS <= state < output else "state end", 8))
        shapes.append(_text(x + _BOX[0] / 2, y + 5, state_name(state), "name"))
    return lines + shapes


def _trunk(state: int, layout: _Layout) -> list[str]:
    """The lane of a state through every column that it only passes."""
    lines = []
    layer = layout.layers[state] + 1
    while (state, layer) in layout.rows:
        x, y = layout.left(layer), layout.rows[state, layer]
        lines.append(_curve(layout.right(layer - 1), layout.rows[state, layer - 1], x, y, "trunk"))
        lines.append(f'<path class="trunk" d="M{x:g} {y:g}H{layout.right(layer):g}"/>')
        layer += 1
    return lines


def _curve(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    middle = (x1 + x2) / 2
    path = f"M{x1:g} {y1:.4g}C{middle:g} {y1:.4g} {middle:g} {y2:.4g} {x2:g} {y2:.4g}"
    return f'<path class="{style}" d="{path}"/>'


def _rect(x: float, y: float, size: tuple[float, float], style: str, radius: float) -> str:
    width, height = size
    place = f'x="{x:g}" y="{y - height / 2:.4g}" width="{width:g}" height="{height:g}"'
    return f'<rect class="{style}" {place} rx="{radius:g}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    base, brace, index = text.partition("_{") if style == "name" else (text, "", "")
    if style == "name" and text == "c_k":
        base, brace, index = "c", "_{", "k}"
    below = f'<tspan class="index" dy="4">{index[:-1].replace("-", "−")}</tspan>' if brace else ""
    return f'<text class="{style}" x="{x:g}" y="{y:.4g}">{escape(base)}{below}</text>'


def _legend_width(key: str) -> float:
    return 48 + 6.2 * len(FAMILIES[key][0])


def _draw_legend(families: list[str], y: float) -> list[str]:
    parts, x = [], _MARGIN
    for key in families:
        parts.append(_rect(x, y + 8, (20, 14), f"{key} pill", 7))
        parts.append(_text(x + 26, y + 12, FAMILIES[key][0], "legend"))
        x += _legend_width(key)
    return parts


def _style() -> str:
    by_day = {key: colours[1:3] for key, colours in FAMILIES.items()}
    by_night = {key: colours[3:5] for key, colours in FAMILIES.items()}
    light = _colours("#ffffff", "#1f2328", "#f3f5f7", "#8c96a1", by_day)
    dark = _colours("#0d1117", "#e6edf3", "#1b222b", "#6b7683", by_night)
    fixed = (
        "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
        ".title{font-size:16px;font-weight:600}.heading{font-weight:600}.legend{font-size:12px}"
        ".name,.label{text-anchor:middle}.index{font-size:9px}"
        ".label{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        "path{fill:none;stroke-width:1.5}.line{stroke-width:2}.pill,.state{stroke-width:1.25}"
    )
    return f"{fixed}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _colours(paper: str, ink: str, box: str, line: str, families: Mapping[str, tuple[str, ...]]) -> str:
    rules = [
        f".paper{{fill:{paper}}}text{{fill:{ink}}}.trunk{{stroke:{line}}}",
        f".state{{fill:{box};stroke:{line}}}.end{{stroke-dasharray:4 3}}",
    ]
    for key, (stroke, fill) in families.items():
        rules.append(f".{key}.line,.{key}.pill{{stroke:{stroke}}}")
        rules.append(f".{key}.pill{{fill:{fill}}}.{key}.label{{fill:{stroke}}}")
    return "".join(rules)
