from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines import provenance
from pipelines.provenance import code_at_start, commit


def _git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "params.yaml", "dvc.yaml", "dvc.lock", "results/table.csv"):
        (tmp_path / name).write_text("as committed\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_gives_its_commit(checkout: Path) -> None:
    assert commit(checkout) == {"commit": _git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "results/table.csv"])
def test_what_runs_write_and_records_hold_is_not_dirt(checkout: Path, name: str) -> None:
    (checkout / name).write_text("another profile\n")
    assert commit(checkout)["dirty"] is False


@pytest.mark.parametrize("name", ["code.py", "dvc.yaml"])
def test_changed_code_is_dirt(checkout: Path, name: str) -> None:
    (checkout / "params.yaml").write_text("another profile\n")
    (checkout / name).write_text("changed\n")
    assert commit(checkout)["dirty"] is True


def test_a_copy_without_git_knows_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == {"commit": None, "dirty": None}


def test_a_run_names_the_code_that_it_started_with(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is committed while it runs."""
    monkeypatch.setattr(provenance, "commit", lambda: commit(checkout))
    code_at_start.cache_clear()
    started = code_at_start()
    (checkout / "code.py").write_text("changed\n")
    _git(checkout, "commit", "-qam", "while it ran")
    assert code_at_start() == started == {"commit": _git(checkout, "rev-parse", "HEAD~1"), "dirty": False}
    code_at_start.cache_clear()
