"""Tables, figures and the report of ``results/`` from the run records alone.

``python -m pipelines.tables`` reads results/records/ and the data files literature.yaml, claims.yaml and
checklist.yaml; it runs nothing again. The same records give the same files, byte for byte.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines import code
from pipelines.figures import draw_all
from pipelines.report import render
from pipelines.results.campaigns import in_order
from pipelines.results.checklist import checklist_markdown, read_checklists
from pipelines.results.claims import COLUMNS as CLAIM_COLUMNS
from pipelines.results.claims import Case, claim_rows, evaluate, read_claims
from pipelines.results.column import Row, own_column
from pipelines.results.columns import TABLES
from pipelines.results.comparison import COMPARISON, comparison_rows
from pipelines.results.curves import KINDS, table, table_columns
from pipelines.results.level import CITED
from pipelines.results.pictures import slug
from pipelines.results.readme import readme
from pipelines.results.records import Library, read_records
from pipelines.results.render import GENERATED, latex, markdown, markdown_table, plain
from pipelines.results.rows import table_rows
from pipelines.results.views import views
from pipelines.stage import output_folder, run
from search.files import write_csv, write_json, write_text

RESULTS = Path("results")


def build(results: Path = RESULTS) -> None:
    """Write every generated file of ``results`` from ``results/records``.

    Raises:
        InputError: If there are no records, or one is not whole.
    """
    library = in_order(Library(tuple(read_records(results / "records"))))
    rules, claims = read_claims()
    tables = {spec.name: table_rows(spec, library) for spec in TABLES if spec is not COMPARISON}
    tables[COMPARISON.name] = comparison_rows(library, rules)
    cases = evaluate(library, rules, claims)
    checklists = read_checklists(library)
    with output_folder(results / "figures") as folder:
        pictures = draw_all(library, tables["classification"], folder)
    for spec in TABLES:
        rows = tables[spec.name]
        write_csv(results / f"{spec.name}.csv", spec.rendered(rows), list(spec.docs))
        write_text(results / f"{spec.name}.md", markdown(spec.title, spec.about, views(spec, rows)))
        write_text(results / f"{spec.name}.tex", latex(spec.name, spec.title, views(spec, rows)))
    for kind in KINDS:
        write_csv(results / "curves" / f"{kind.name}.csv", table(kind, library), list(table_columns(kind)))
    write_csv(results / "claims.csv", claim_rows(cases), [column.key for column in CLAIM_COLUMNS])
    write_text(results / "claims.md", claims_markdown(cases))
    write_text(results / "checklist.md", checklist_markdown(checklists))
    with output_folder(results / "metrics") as folder:
        for path, numbers in metric_files(tables).items():
            write_json(folder / path, numbers)
    write_text(results / "README.md", readme(pictures))
    page = render(library, tables, cases, rules, pictures, results / "figures", checklists)
    write_text(results / "report.html", page)


def claims_markdown(cases: Sequence[Case]) -> str:
    """The claims as a Markdown page: the verdicts, then what decides each."""
    verdicts = [[c.claim.claim, c.verdict, plain(c.where) or "–", "; ".join(c.tests)] for c in cases]
    how = {c.claim.claim: [c.claim.claim, c.claim.statistic, c.needs, c.claim.source] for c in cases}
    parts = [
        "# Claims",
        "Supported, or not, only where the bootstrap interval and the Holm-corrected test agree; everything "
        "else that was run is undecided.",
        f"<!-- {GENERATED} -->",
        markdown_table(["claim", "verdict", "runs", "tests"], verdicts, [False] * 4),
        "## What decides them",
        markdown_table(["claim", "statistic", "needs", "source"], list(how.values()), [False] * 4),
    ]
    return "\n\n".join(parts) + "\n"


def metric_files(tables: dict[str, list[Row]]) -> dict[str, Row]:
    """Means and n of every row of ours, a file a row, for `dvc metrics show` and `dvc exp show`.

    The hash of the settings stands in a name only where two rows would share it, so that an experiment with a
    changed setting keeps its names and is compared with the present results.

    Returns:
        Numbers by path below ``results/metrics``: ``<table>/<campaign>/<data set>/<network>-<precision>.json``.
    """
    found: dict[str, Row] = {}
    for spec in TABLES:
        rows = [row for row in tables[spec.name] if row["level"] != CITED and spec.metrics]
        paths = Counter(_metric_path(spec.name, row) for row in rows)
        for row in rows:
            path = _metric_path(spec.name, row)
            path += f"-{row['settings']}" if paths[path] > 1 else ""
            keys = [own_column(row, metric.key) for metric in spec.metrics]
            found[f"{path}.json"] = {key: row[key] for key in keys if row[key] is not None} | {"n": row["n"]}
    return found


def _metric_path(table_name: str, row: Row) -> str:
    form = None if row["form"] == "paper" else row["form"]
    network = "-".join(str(part) for part in (row["variant"] or row["name"], row["precision"], form) if part)
    return "/".join(map(slug, (table_name, ", ".join(row["campaign"]), row["dataset"], network)))


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.tables", description=__doc__)
    parser.parse_args()
    code.check("tables")
    build()
    print(f"tables, figures and report in {RESULTS}")


if __name__ == "__main__":
    run(main)
