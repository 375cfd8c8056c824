"""What DVC would end with is said before, in one line with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import checkout
from search.errors import InputError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What DVC needs of a checkout, with a space in its path, and git."""
    root = tmp_path / "with space"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def refused(root: Path) -> str:
    with pytest.raises(InputError) as error:
        checkout.check(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_ordinary_checkout_is_fine(folder: Path) -> None:
    checkout.check(folder)
    (folder / "dvc.lock").unlink()
    checkout.check(folder)


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml"])
def test_a_merge_conflict_is_named_with_its_line(folder: Path, name: str) -> None:
    (folder / name).write_text("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> theirs\n")
    assert f"{name}: has a merge conflict in line 2; take one side, git checkout --ours" in refused(folder)


def test_a_downloaded_archive_is_no_repository(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    assert "is no git repository" in refused(folder)
    assert "dvc config core.no_scm true" in refused(folder)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "core.no_scm", "true"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    checkout.check(folder)


def test_another_users_checkout_names_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that mounts it; git's own switch for its tests makes it believe so."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for name in ("GIT_CONFIG_COUNT", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    assert f"git config --global --add safe.directory {folder}" in refused(folder)


def test_without_git_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert "git is not installed" in refused(folder)


def test_make_reproduce_begins_with_it() -> None:
    recipe = subprocess.run(["make", "-n", "reproduce"], cwd=ROOT, capture_output=True, text=True).stdout
    assert recipe.index("pipelines.checkout") < recipe.index("pipelines.readme")
