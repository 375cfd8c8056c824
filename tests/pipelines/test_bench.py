from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.bench import markdown, rows_of
from search.errors import InputError
from search.files import read_csv

ROOT = Path(__file__).parents[2]

MEASURED = """
import time
import pytest

@pytest.mark.benchmark(group="sleep")
def test_slow(benchmark):
    benchmark.pedantic(time.sleep, args=(0.02,), rounds=3)

@pytest.mark.benchmark(group="sleep")
def test_fast(benchmark):
    benchmark.extra_info["baseline"] = "test_slow"
    benchmark.pedantic(time.sleep, args=(0.002,), rounds=3)
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pytest-benchmark really writes, with the suite's own hook."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "test_it.py").write_text(MEASURED)
    (folder / "conftest.py").write_text((ROOT / "tests" / "benchmarks" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=report.json"]
    # a worker of pytest-xdist says so in its environment, and pytest-benchmark then measures nothing
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return folder / "report.json"


def test_rows_have_ratios_against_their_baseline(report: Path) -> None:
    fast, slow = rows_of(json.loads(report.read_text()))
    assert (fast["benchmark"], fast["baseline"]) == ("test_fast", "test_slow")
    assert fast["ratio"] == pytest.approx(fast["median_s"] / slow["median_s"], rel=1e-3)
    assert slow["ratio"] is None
    assert slow["rounds"] == 3
    assert slow["torch"]
    assert slow["cores"] > 0


def test_program_writes_both_tables(report: Path, tmp_path: Path) -> None:
    table = tmp_path / "results" / "benchmarks.csv"
    command = [sys.executable, "-m", "pipelines.bench", str(report), str(table)]
    subprocess.run(command, cwd=ROOT, check=True)
    rows = read_csv(table)
    assert [row["benchmark"] for row in rows] == ["test_fast", "test_slow"]
    text = table.with_suffix(".md").read_text()
    assert "## sleep" in text
    assert f"| test_fast | test_slow | {float(rows[0]['ratio'])} |" in text
    name = json.loads(report.read_text())["machine_info"]["node"]
    assert name not in table.read_text()


def test_unknown_baseline_is_named(report: Path) -> None:
    content = json.loads(report.read_text())
    content["benchmarks"][0]["extra_info"]["baseline"] = "test_quick"
    with pytest.raises(InputError, match=r"names the baseline 'test_quick'.*allowed: .*test_slow"):
        rows_of(content)


def test_no_report_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    command = [sys.executable, "-m", "pipelines.bench", str(tmp_path / "x.json"), str(tmp_path / "x.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'x.json'}: not a report of pytest-benchmark\n"


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    row = dict.fromkeys(("benchmark", "baseline", "ratio", "median_s", "min_s", "rounds"), 1)
    machine = dict.fromkeys(("group", "cpu", "cores", "threads", "python", "torch", "commit"), "x")
    assert "| a\\|b | 1 |" in markdown([row | machine | {"benchmark": "a|b"}])
