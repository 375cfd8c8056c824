"""``results/report.html``: one page with every table, figure, claim and run, without network access."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.results.columns import TABLES, TableSpec
from pipelines.results.curves import KINDS, display_name
from pipelines.results.level import MEANING
from pipelines.results.origin import commit
from pipelines.results.overview import by_text, campaigns, claim_groups, facts, largest_first
from pipelines.results.pictures import Picture
from pipelines.results.plotting import inline
from pipelines.results.records import Library, Record
from pipelines.results.rows import groups
from pipelines.results.statistics import Rules
from pipelines.results.views import View, views

TEMPLATES = Path(__file__).parent / "templates"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
GALLERY = {"detection": "detect", "reid": "reid"}
PICTURES = 4
"""Pictures shown of a network: the first of its first seed's run."""
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
    drawn = [_drawn(picture, figures) for picture in pictures]
    return environment.get_template("report.html.j2").render(
        css=_own("report.css"),
        script=_own("report.js"),
        facts=facts(library, claims),
        campaigns=campaigns(library),
        sections=_sections(bool(checklists)),
        levels=list(MEANING.items()),
        rules=rules,
        claims=by_text(claim_groups(claims)),
        tables=[_table(spec, tables[spec.name], library, drawn) for spec in TABLES],
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


def _table(spec: TableSpec, rows: list[Row], library: Library, pictures: list[Row]) -> Row:
    records = library.of(GALLERY[spec.name]) if spec.name in GALLERY else []
    shown = [group[0] for group in groups(records) if group[0].pictures]
    blocks = [
        _block(f"{spec.name}-{place}", view, pictures, shown)
        for place, view in enumerate(views(spec, rows), start=1)
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


def _block(anchor: str, view: View, pictures: list[Row], shown: list[Record]) -> Row:
    """A view with the figures and pictures of its campaign and data set."""
    row = view.rows[0]
    place = (row.get("profile"), row.get("dataset"))
    here = [picture for picture in pictures if view.kind == "ours" and picture["place"] == place]
    gallery = [record for record in shown if (record.profile, record.dataset["name"]) == place]
    table = anchor.rpartition("-")[0]
    return {
        "anchor": anchor,
        "view": view,
        "figures": [picture for picture in here if picture["kind"] == table],
        "cells": [picture for picture in here if picture["kind"] == "cell" and table == "search"],
        "gallery": [_gallery(record) for record in gallery],
    }


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
