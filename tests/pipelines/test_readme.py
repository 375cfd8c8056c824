from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import readme
from search.errors import InputError

ROOT = Path(__file__).parents[2]


def test_the_readmes_numbers_are_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """What README.md shows is what results/ and the counter say now."""
    monkeypatch.chdir(ROOT)
    if not (ROOT / "results" / "classification.csv").exists():
        pytest.skip("results/ is not generated yet (make reproduce)")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.fill(text) == text, "run: python -m pipelines.readme"


def test_every_picture_and_file_it_names_exists() -> None:
    import re

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    if not (ROOT / "results" / "classification.csv").exists():
        links = [link for link in links if not link.startswith("results/")]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="marks of the block 'results'"):
        readme.fill("# No marks", tmp_path)


def test_cost_block_counts_the_published_networks() -> None:
    block = readme.cost_block(ROOT / "results")
    rows = {line.split("|")[1].strip(): line for line in block.splitlines()[2:]}
    assert "| 4816.90 |" in rows["ReActNet-A"] and "| 87.13 |" in rows["ReActNet-A"]
    assert "| 603.54 |" in rows["DCP-NAS-Large, as released"]
