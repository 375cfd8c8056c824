"""``results/report.html``: one page with every table, figure, claim and run, without network access."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.results.claims import NOT_RUN, dataset_label
from pipelines.results.columns import TABLES
from pipelines.results.level import MEANING
from pipelines.results.origin import commit, hardware
from pipelines.results.pictures import Picture
from pipelines.results.plotting import inline
from pipelines.results.records import Library, Record
from pipelines.results.rows import unique
from pipelines.results.statistics import Rules
from pipelines.results.views import views

TEMPLATES = Path(__file__).parent / "templates"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
GALLERY = {"detection": "detect", "reid": "reid"}
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
        facts=_facts(library, claims),
        sections=_sections(bool(checklists)),
        levels=list(MEANING.items()),
        rules=rules,
        claims=claim_groups(claims),
        tables=[_table(spec, tables[spec.name], library) for spec in TABLES],
        pictures=[picture for picture in drawn if picture["kind"] != "cell"],
        cells=[picture for picture in drawn if picture["kind"] == "cell"],
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
        "svg": Markup(inline(svg, picture.name, f"{picture.title}. {picture.caption}")),
    }


def _sections(checklists: bool) -> list[tuple[str, str]]:
    named = [("glance", "At a glance"), ("claims", "Claims"), *((spec.name, spec.title) for spec in TABLES)]
    return [*named, ("provenance", "Provenance"), *([("checklist", "Checklists")] if checklists else [])]


def _facts(library: Library, claims: list[Row]) -> list[tuple[str, str]]:
    records = library.records
    verdicts = Counter(claim["verdict"] for claim in claim_groups(claims))
    return [
        ("Runs recorded", str(len(records))),
        ("Searches", str(len(library.of("search")))),
        ("Profiles", ", ".join(unique(record.profile for record in records))),
        ("Claims", ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))),
        ("Code", ", ".join(unique(commit(record.provenance) for record in records))),
        ("Devices", ", ".join(unique(hardware(record.provenance) for record in records))),
    ]


def claim_groups(rows: list[Row]) -> list[Row]:
    """Rows of claims.csv as one entry a claim and case, with its tests in words."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["claim"], row["case"]), []).append(row)
    return [_claim_group(group) for group in groups.values()]


def _claim_group(group: list[Row]) -> Row:
    first = group[0]
    parts = ("methods", "dataset", "profile", "level")
    where = " · ".join(
        ", ".join(found) for key in parts if (found := unique(row[key] for row in group if row[key]))
    )
    keys = ("text", "verdict", "statistic", "needs", "source")
    return {key: first[key] for key in keys} | {"where": where, "tests": [_test(row) for row in group]}


def _test(row: Row) -> str:
    if row["outcome"] == NOT_RUN:
        return f"{row['comparison']}: not run"
    effect = "none yet" if row["effect"] is None else f"{row['effect']:.4g}"
    bound = f"must be above {row['above']:g}"
    text = f"{row['comparison']}: {row['outcome']}, effect {effect} ({bound}), n {row['n']}"
    if row["low"] is None:
        return f"{text}, too few for an interval"
    return f"{text}, interval {row['low']:.4g} to {row['high']:.4g}, corrected p {row['p_holm']:.3g}"


def _table(spec: Any, rows: list[Row], library: Library) -> Row:
    sections = views(spec, rows)
    records = library.of(GALLERY[spec.name]) if spec.name in GALLERY else []
    return {
        "name": spec.name,
        "title": spec.title,
        "about": spec.about,
        "views": sections,
        "ours": any(view.kind == "ours" for view in sections),
        "gallery": [_gallery(record) for record in records if record.pictures],
    }


def _gallery(record: Record) -> Row:
    precision = "real-valued" if record.run["precision"] == "real" else "1-bit"
    title = f"{record.network}, {precision}, seed {record.seed}, {dataset_label(record)} ({record.profile})"
    pictures = [(path.stem.replace("_", " "), _data_uri(path)) for path in record.pictures]
    return {"title": title, "pictures": pictures}


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
