from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import readme
from pipelines.results.columns import TABLES
from pipelines.results.records import Library, read_records
from pipelines.results.rows import table_rows
from search.errors import InputError
from search.files import write_csv
from tests.pipelines.results_records import CIFAR, write_retrain, write_run, write_transfer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", readme.PAGES, ids=str)
def test_the_pages_numbers_are_the_results(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What README.md and docs/results.md show is what results/ and the counter say now."""
    monkeypatch.chdir(ROOT)
    if not (ROOT / "results" / "classification.csv").exists():
        pytest.skip("results/ is not generated yet (make reproduce)")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert readme.fill(text, page) == text, "run: python -m pipelines.readme"


def test_blocks_show_runs_searches_floors_and_whole_detectors(tmp_path: Path) -> None:
    """A table a task, each with its own headings: a detection's cost is the detector's, its floor of its own rule."""
    for seed in range(2):
        write_retrain(tmp_path / "records/photos", "cp_nas", 0, "1bit", "cifar10", seed)
    write_transfer(tmp_path / "records/photos", "cp_nas", 0)
    write_run(
        tmp_path / "records/bccd",
        "retrain/imagenet/bi-real-18-1bit-s0",
        network="bi-real-18",
        method=None,
        task="imagenet",
        dataset={**CIFAR, "name": "pets"},
        metrics={"accuracy": 0.45, "epochs": 3},
    )
    library = Library(tuple(read_records(tmp_path / "records")))
    for spec in TABLES:
        if spec.name != "comparison":
            write_csv(tmp_path / f"{spec.name}.csv", spec.rendered(table_rows(spec, library)))
    tables = readme.photographs_block(tmp_path).split("\n\n")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for table in tables for line in table.splitlines()
    ]
    rows = {line[0]: line for line in lines if len(line) > 1}
    assert rows["cifar10"][4:6] == ["2", "1"] and "±" in rows["cifar10"][3]
    assert rows["pets (other data)"][3:6] == ["45.0", "1", "–"]
    assert (
        rows["detection"][2] == "W/A of the backbone" and rows["detection"][3] == "VOC07 11-point mAP@0.5 %"
    )
    assert rows["detection"][6:] == ["OPs M (strict) of the detector", "Mbit of the detector", "untrained"]
    assert rows["cifar10-scenes (stand-in)"][6:] == ["41.087", "9.50", "2.0"]
    assert rows["orl-faces (stand-in)"][6:] == ["1.087", "0.38", "8.0"]
    assert tables[-1] == "Raw pixels, compared without any network, reach on orl-faces: mAP 25.0 %."


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_and_file_that_a_page_names_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    if not (ROOT / "results" / "classification.csv").exists():
        links = [link for link in links if "results/" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    """Its first screen is what a stranger reads; the rest has pages of its own."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


def test_the_finding_is_that_of_the_last_report(tmp_path: Path) -> None:
    assert "not run yet" in readme.finding_block(tmp_path)
    (tmp_path / "benchmark.md").write_text("# Title\n\nTau is 0.5 [0.4, 0.6].\n\nmore\n")
    assert readme.finding_block(tmp_path).startswith("**Tau is 0.5 [0.4, 0.6].** (")


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="marks of the block 'finding'"):
        readme.fill("# No marks", results=tmp_path)


def test_cost_block_counts_the_published_networks() -> None:
    block = readme.cost_block(ROOT / "results")
    rows = {line.split("|")[1].strip(): line for line in block.splitlines()[2:]}
    assert "| 4816.90 |" in rows["ReActNet-A"] and "| 87.13 |" in rows["ReActNet-A"]
    assert "| 603.54 |" in rows["DCP-NAS-Large, as released"]
