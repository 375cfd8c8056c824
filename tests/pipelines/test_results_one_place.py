"""Adding a metric is one line: the example of CONTRIBUTING.md, done in a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from search.files import read_csv, read_json, write_json
from tests.pipelines.results_records import write_retrain

ROOT = Path(__file__).parents[2]
PLACE = "_ALL = ("
"""The line of metrics.py behind which a metric may stand."""


def test_a_metric_is_added_in_one_place(tmp_path: Path) -> None:
    """The entry in metrics.py alone: the record is taken, and table, README and page have the column."""
    for package in ("pipelines", "search"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "code.yaml")
        )
    shutil.copytree(
        ROOT / "downstream", tmp_path / "downstream", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pipelines/profiles/quick.yaml", tmp_path / "params.yaml")
    write_retrain(tmp_path / "runs", "cp_nas", 0, "1bit", "cifar10")
    path = next((tmp_path / "runs").rglob("metrics.json"))
    write_json(path, read_json(path) | {"sharpness": 12.5})

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    collect = ("pipelines.collect", "add", "runs", "--campaign", "gpu")
    refused = run(*collect)
    assert refused.returncode == 2 and "unknown metric 'sharpness'" in refused.stderr
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (entry,) = re.findall(r"^ *```python\n *(Metric\(.*?\))\n *```$", page, re.MULTILINE | re.DOTALL)
    declared = tmp_path / "pipelines/results/metrics.py"
    declared.write_text(declared.read_text().replace(PLACE, f"{PLACE}\n    {entry},", 1))
    assert run(*collect).returncode == 0
    tables = run("pipelines.tables")
    assert tables.returncode == 0, tables.stderr
    (row,) = [row for row in read_csv(tmp_path / "results/classification.csv") if row["n"]]
    assert row["sharpness"] == "12.5"
    assert "| sharpness |" in (tmp_path / "results/classification.md").read_text()
    assert "largest eigenvalue of the loss; mean" in (tmp_path / "results/README.md").read_text()
    assert ">sharpness</th>" in (tmp_path / "results/report.html").read_text()
