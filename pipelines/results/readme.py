"""``results/README.md``: every file and every column of results/, from the same definitions as the tables."""

from __future__ import annotations

from pipelines.results.claims import COLUMNS as CLAIM_COLUMNS
from pipelines.results.columns import TABLES
from pipelines.results.curves import KINDS, table_columns
from pipelines.results.level import MEANING
from pipelines.results.literature import references
from pipelines.results.pictures import Picture
from pipelines.results.record_columns import HISTORY, OTHER, ROUNDS
from pipelines.results.render import GENERATED, markdown_table, plain

HEAD = """# Results

<!-- {generated} -->

Everything here is computed from the run records in `records/` and from `pipelines/literature.yaml`; nothing
is typed. `python -m pipelines.tables` writes it again, byte for byte, from the same records.

How not to misread it:

- A row's own numbers and the literature's are in different columns: those named `paper_...` are the
  literature's, on the data set in `paper_dataset`. In the Markdown, LaTeX and HTML tables they are in blocks
  of their own.
- Numbers on other data than the papers' are in columns named `other_...`, those on a stand-in in `stand_in_...`,
  never in those of the papers' data sets, and no literature's number stands beside them. Which data sets are the
  papers' is listed under `datasets` in `pipelines/literature.yaml`.
- ± is over all runs of a row: where they rest on one search, it says nothing about other searches.
- Operations and memory of a detection are the whole detector's, those of the backbone have columns of their own.
- A mean is over all runs, never the best; `values` lists every run. Runs of different settings, data or
  campaigns are never averaged together.
- W/A gives the bits of weights and activations. `1/32` and `1/1 + 1/32` are not fully 1-bit networks.
- Accuracies and average precisions are in percent.

## Files
"""
FILES = {
    "report.html": "all of it on one page; no network access, light and dark, phone and desk",
    "metrics/": "means and n, a file for every row of ours by table, campaign and data set, for `dvc metrics show`",
    "claims.csv, claims.md": "the papers' claims: supported, not supported, undecided or not run",
    "checklist.md": "best-practice checklists, point by point",
    "figures/": "every figure as SVG",
    "curves/": "the numbers behind the curves: mean and spread by step or epoch; `dvc plots show` draws them",
    "benchmarks.csv, benchmarks.md": "speed of the code on one machine, written by `make bench`; no run records",
    "records/<profile>/": "the run records: what each run measured, settings, provenance; no weights",
}
RECORD_FILES = {
    "run.json": "which run it is: stage, network, method and variant, precision, seed, task, data set, scale, hashes",
    "metrics.json": "the measured values; shares in [0, 1], times in seconds",
    "params.json": "the settings the stage used",
    "provenance.json": "commit, versions, device, threads, data hashes, times",
    "history.csv": "one row an epoch, draw or round",
    "rounds.csv": "searches by elimination: one row an elimination, what survived and what was dropped",
    **OTHER,
    "genotype.json, network.json": "the found architecture",
    "collapse.json": "the found normal cell: skip connections, depth, parameter-free share, whether it collapsed",
    "cost.json": "the network's counted cost; of a detection the backbone's, and under `detector` the whole detector's",
    "pictures/": "detections or retrievals of the run",
}


def readme(pictures: list[Picture]) -> str:
    """The whole file."""
    files = [(f"`{spec.name}.csv`, `.md`, `.tex`", spec.about) for spec in TABLES]
    files += [(_code(name), about) for name, about in FILES.items()]
    parts = [HEAD.format(generated=GENERATED).strip(), _table(("file", "what it is"), files)]
    parts += ["## Levels", _table(("level", "meaning"), list(MEANING.items()))]
    for spec in TABLES:
        parts += [f"## Columns of {spec.name}.csv", _columns(spec.docs)]
    for kind in KINDS:
        parts += [f"## Columns of curves/{kind.name}.csv", _columns(table_columns(kind))]
    parts += ["## Columns of claims.csv", _columns({column.key: column.doc for column in CLAIM_COLUMNS})]
    parts += ["## Files of a record", _columns(RECORD_FILES, "file")]
    parts += ["## Columns of a record's history.csv", _columns(HISTORY)]
    parts += ["## Columns of a record's rounds.csv", _columns(ROUNDS)]
    parts += ["## Sources", "\n".join(f"- {name}: {meaning}" for name, meaning in references().items())]
    if pictures:
        rows = [(f"`figures/{p.name}.svg`", plain(f"{p.title}. {p.caption}")) for p in pictures]
        parts += ["## Figures", _table(("file", "what it shows"), rows)]
    return "\n\n".join(parts) + "\n"


def _table(heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return markdown_table(heads, rows, [False, False])


def _columns(named: dict[str, str], head: str = "column") -> str:
    return _table((head, "meaning"), [(_code(name), meaning) for name, meaning in named.items()])


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))
