"""``results/report.html``: one page with every table, figure, claim and run, without network access."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.results.campaigns import campaign_order
from pipelines.results.checklist import Checklist
from pipelines.results.claims import Case, by_claim
from pipelines.results.column import DASH, Column, Row, Table
from pipelines.results.columns import COSTS, TABLES
from pipelines.results.curves import KINDS, display_name
from pipelines.results.groups import groups
from pipelines.results.level import MEANING
from pipelines.results.overview import CAMPAIGN_COLUMNS, campaigns, facts, largest_first
from pipelines.results.pictures import Picture
from pipelines.results.plotting import inline
from pipelines.results.records import Library
from pipelines.results.run import Run
from pipelines.results.statistics import Rules
from pipelines.results.views import View, views

TEMPLATES = Path(__file__).parent / "templates"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
GALLERY = {"detection": "detect", "reid": "reid"}
PICTURES = 4
"""Pictures shown of a network: the first of its first seed's run."""
COUNTS = tuple(head for head, _ in COSTS.values())
GENEROUS = COSTS["ops_generous_M"][0]
"""Ends of the headings of the columns that :func:`telling` may leave out."""


def render(
    library: Library,
    tables: dict[str, list[Row]],
    cases: Sequence[Case],
    rules: Rules,
    pictures: Sequence[Picture],
    figures: Path,
    checklists: Sequence[Checklist],
) -> str:
    """The page as text; ``figures`` is the folder that ``pictures`` were drawn into."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    order, tested = campaign_order(library), by_claim(cases)
    left = [picture for picture in pictures if picture.kind not in ("accuracy", "ops", "cited")]
    return environment.get_template("report.html.j2").render(
        css=_own("report.css"),
        script=_own("report.js"),
        facts=facts(library, cases),
        campaigns=View("Campaigns", "", "ours", "paper", CAMPAIGN_COLUMNS, tuple(campaigns(library))),
        sections=_sections(bool(checklists)),
        levels=list(MEANING.items()),
        rules=rules,
        claims=sorted((claim for claim in tested if claim.was_run), key=lambda claim: not claim.decided),
        not_run=[claim for claim in tested if not claim.was_run],
        tables=[_table(spec, tables[spec.name], library, left, order) for spec in TABLES],
        pictures=pictures,
        svg={picture.name: _svg(picture, figures) for picture in pictures},
        accuracy=largest_first([picture for picture in pictures if picture.kind == "accuracy"], library),
        runs=[_run(run) for run in library.runs],
        checklists=checklists,
    )


def _own(name: str) -> Markup:
    """A file of ours for the head of the page: trusted, unlike every value out of a record."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _svg(picture: Picture, figures: Path) -> Markup:
    """A figure that we drew: its texts were escaped when it was written, its identifiers are made of its slug."""
    svg = (figures / f"{picture.name}.svg").read_text(encoding="utf-8")
    return Markup(inline(svg, picture.name, f"{picture.title}. {picture.caption}"))


def _sections(checklists: bool) -> list[tuple[str, str]]:
    named = [("glance", "At a glance"), ("claims", "Claims"), *((spec.name, spec.title) for spec in TABLES)]
    return [*named, ("provenance", "Provenance"), *([("checklist", "Checklists")] if checklists else [])]


def _table(
    spec: Table, rows: list[Row], library: Library, left: list[Picture], order: list[str]
) -> dict[str, Any]:
    runs = library.of(GALLERY[spec.name]) if spec.name in GALLERY else []
    shown = [group[0] for group in groups(runs) if group[0].pictures]
    blocks = [
        _block(f"{spec.name}-{place}", view, [p for p in left if p.kind in (spec.name, "cell")], shown)
        for place, view in enumerate(_in_order(views(spec, rows), order), start=1)
    ]
    files = [f"{spec.name}.{suffix}" for suffix in ("csv", "md", "tex")]
    return {
        "name": spec.name,
        "title": spec.title,
        "about": spec.about,
        "blocks": blocks,
        "ours": [block for block in blocks if block["view"].kind == "ours"],
        "files": files + [f"curves/{kind.name}.csv" for kind in KINDS if kind.name == spec.name],
    }


def _in_order(found: list[View], order: list[str]) -> list[View]:
    """Our sections by the first of their campaigns, the literature's after them."""

    def place(view: View) -> int:
        return min(map(order.index, view.rows[0]["campaign"])) if view.kind == "ours" else len(order)

    return sorted(found, key=place)


def _block(anchor: str, view: View, left: list[Picture], shown: list[Run]) -> dict[str, Any]:
    """A view with the figures and pictures of its campaigns and data set."""
    places = []
    if view.kind == "ours":
        places = [(name, view.rows[0].get("dataset")) for name in view.rows[0]["campaign"]]
    here = [picture for picture in left if (picture.campaign, picture.dataset) in places]
    table = anchor.rpartition("-")[0]
    return {
        "anchor": anchor,
        "view": view,
        "columns": telling(view),
        "figures": [picture for picture in here if picture.kind == table],
        "cells": [picture for picture in here if picture.kind == "cell" and table == "search"],
        "gallery": [_gallery(run) for run in shown if (run.campaign, run.data.name) in places],
    }


def telling(view: View) -> list[Column]:
    """The columns of a section of ours without counts that say nothing: those that no row has, and the generous count
    of operations where it is the strict one in every row."""
    if view.kind != "ours":
        return list(view.columns)
    same = all(row.get("ops_strict_M") == row.get("ops_generous_M") for row in view.rows)
    return [column for column in view.columns if not _idle(column, view, same)]


def _idle(column: Column, view: View, same: bool) -> bool:
    if not column.head.endswith(COUNTS):
        return False
    return (same and column.head.endswith(GENEROUS)) or all(column.text(row) == DASH for row in view.rows)


def _gallery(run: Run) -> dict[str, Any]:
    return {
        "title": f"{display_name(run)}, {run.network}, seed {run.seed}",
        "pictures": [(_caption(path), _data_uri(path)) for path in run.pictures[:PICTURES]],
    }


def _caption(path: Path) -> str:
    return f"picture {int(path.stem) + 1}" if path.stem.isdigit() else path.stem.replace("_", " ")


def _data_uri(path: Path) -> str:
    """A recorded picture as a data URI: shown as an image, never run as a document."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _run(run: Run) -> dict[str, Any]:
    named = {"metrics": "metrics", "run": "run", "settings": "params", "provenance": "provenance"}
    return {
        "campaign": run.campaign,
        "path": f"{run.stage}/{run.key}",
        "summary": f"{run.task} · {run.provenance.commit}",
        "files": [
            (name, json.dumps(run.recorded[file], indent=1, ensure_ascii=False))
            for name, file in named.items()
        ],
    }
