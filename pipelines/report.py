"""``results/report.html``: one page with every table, figure, claim and run, without network access."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.results.campaigns import campaign_order
from pipelines.results.claims import NOT_RUN, NOT_SUPPORTED, SUPPORTED
from pipelines.results.columns import COSTS, TABLES, TableSpec
from pipelines.results.curves import KINDS, display_name
from pipelines.results.level import MEANING
from pipelines.results.origin import commit
from pipelines.results.overview import by_text, campaigns, claim_groups, facts, largest_first
from pipelines.results.pictures import Picture
from pipelines.results.plotting import inline
from pipelines.results.records import Library, Record
from pipelines.results.rows import groups
from pipelines.results.statistics import Rules
from pipelines.results.views import DASH, Column, View, views

TEMPLATES = Path(__file__).parent / "templates"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
GALLERY = {"detection": "detect", "reid": "reid"}
PICTURES = 4
"""Pictures shown of a network: the first of its first seed's run."""
COUNTS = tuple(head for head, _ in COSTS.values())
GENEROUS = COSTS["ops_generous_M"][0]
"""Ends of the headings of the columns that :func:`telling` may leave out."""
Row = dict[str, Any]


def render(
    library: Library,
    tables: dict[str, list[Row]],
    claims: list[Row],
    rules: Rules,
    pictures: list[Picture],
    figures: Path,
    checklists: list[Any],
) -> str:
    """The page as text; ``figures`` is the folder that ``pictures`` were drawn into."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    order = campaign_order(library)
    drawn = [_drawn(picture, figures) for picture in pictures]
    listed = by_text(claim_groups(claims))
    return environment.get_template("report.html.j2").render(
        css=_own("report.css"),
        script=_own("report.js"),
        facts=facts(library, claims),
        campaigns=campaigns(library),
        sections=_sections(bool(checklists)),
        levels=list(MEANING.items()),
        rules=rules,
        claims=sorted((claim for claim in listed if _was_run(claim)), key=_undecided),
        not_run=[claim for claim in listed if not _was_run(claim)],
        tables=[_table(spec, tables[spec.name], library, drawn, order) for spec in TABLES],
        pictures=drawn,
        accuracy=largest_first([picture for picture in drawn if picture["kind"] == "accuracy"], library),
        runs=[_run(record) for record in library.records],
        checklists=checklists,
    )


def _own(name: str) -> Markup:
    """A file of ours for the head of the page: trusted, unlike every value out of a record."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _drawn(picture: Picture, figures: Path) -> Row:
    svg = (figures / f"{picture.name}.svg").read_text(encoding="utf-8")
    return {
        "kind": picture.kind,
        "title": picture.title,
        "caption": picture.caption,
        "place": (picture.profile, picture.dataset),
        "svg": Markup(inline(svg, picture.name, f"{picture.title}. {picture.caption}")),
    }


def _sections(checklists: bool) -> list[tuple[str, str]]:
    named = [("glance", "At a glance"), ("claims", "Claims"), *((spec.name, spec.title) for spec in TABLES)]
    return [*named, ("provenance", "Provenance"), *([("checklist", "Checklists")] if checklists else [])]


def _was_run(claim: Row) -> bool:
    return any(case["verdict"] != NOT_RUN for case in claim["cases"])


def _undecided(claim: Row) -> bool:
    """Decided claims come first."""
    return all(case["verdict"] not in (SUPPORTED, NOT_SUPPORTED) for case in claim["cases"])


def _table(spec: TableSpec, rows: list[Row], library: Library, pictures: list[Row], order: list[str]) -> Row:
    records = library.of(GALLERY[spec.name]) if spec.name in GALLERY else []
    shown = [group[0] for group in groups(records) if group[0].pictures]
    left = [picture for picture in pictures if picture["kind"] in (spec.name, "cell")]
    blocks = [
        _block(f"{spec.name}-{place}", view, left, shown)
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
        return min(map(order.index, _campaigns(view))) if view.kind == "ours" else len(order)

    return sorted(found, key=place)


def _campaigns(view: View) -> list[str]:
    """The campaigns of a section of ours; several where they share the searches in it."""
    return str(view.rows[0]["profile"]).split(", ")


def _block(anchor: str, view: View, left: list[Row], shown: list[Record]) -> Row:
    """A view with the figures and pictures of its campaign and data set; these figures leave ``left``."""
    here: list[Row] = []
    gallery: list[Record] = []
    if view.kind == "ours":
        places = [(name, view.rows[0].get("dataset")) for name in _campaigns(view)]
        here = [picture for picture in left if picture["place"] in places]
        left[:] = [picture for picture in left if picture not in here]
        gallery = [record for record in shown if (record.profile, record.dataset["name"]) in places]
    table = anchor.rpartition("-")[0]
    return {
        "anchor": anchor,
        "view": view,
        "columns": telling(view),
        "figures": [picture for picture in here if picture["kind"] == table],
        "cells": [picture for picture in here if picture["kind"] == "cell" and table == "search"],
        "gallery": [_gallery(record) for record in gallery],
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


def _gallery(record: Record) -> Row:
    title = f"{display_name(record)}, {record.network}, seed {record.seed}"
    return {
        "title": title,
        "pictures": [(_caption(path), _data_uri(path)) for path in record.pictures[:PICTURES]],
    }


def _caption(path: Path) -> str:
    return f"picture {int(path.stem) + 1}" if path.stem.isdigit() else path.stem.replace("_", " ")


def _data_uri(path: Path) -> str:
    """A recorded picture as a data URI: shown as an image, never run as a document."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _run(record: Record) -> Row:
    files = {
        "metrics": record.metrics,
        "run": record.run,
        "settings": record.params,
        "provenance": record.provenance,
    }
    task = record.run["task"]
    return {
        "profile": record.profile,
        "path": f"{record.stage}/{record.run['key']}",
        "summary": " · ".join(str(part) for part in (task, commit(record.provenance)) if part),
        "files": [(name, json.dumps(value, indent=1, ensure_ascii=False)) for name, value in files.items()],
    }
