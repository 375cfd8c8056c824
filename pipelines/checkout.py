"""Whether DVC can work in this checkout: what it would end with is said first, in one line with what to do.

``python -m pipelines.checkout`` is the first step of ``make reproduce``; docs/trouble.md has DVC's own words.
"""

from __future__ import annotations

import argparse
import configparser
import subprocess
from pathlib import Path

from pipelines import stage
from search.errors import InputError

MERGED = ("dvc.lock", "dvc.yaml", "params.yaml", "pipelines/code.yaml")
"""Files that git merges line by line and DVC reads."""


def check(root: Path = Path()) -> None:
    """Refuse a checkout in which DVC cannot work.

    Raises:
        InputError: If a file that DVC reads has a merge conflict, if the folder is no git repository (and DVC was not
            told so), or if it is another user's.
    """
    for name in MERGED:
        check_merged(root / name)
    check_repository(root)


def check_merged(path: Path) -> None:
    """Refuse a file with git's conflict marks; one that is not there has none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            raise InputError(
                f"has a merge conflict in line {number}",
                where=path,
                mend=f"take one side, git checkout --ours {path} or --theirs {path}, then make reproduce",
            )


def check_repository(root: Path) -> None:
    """Refuse what DVC takes for no repository of this user's."""
    if _without_git(root):
        return
    here = root.resolve()
    try:
        found = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(
            "git is not installed, and DVC works with it", where=here, mend="install git"
        ) from None
    if found.returncode == 0:
        return
    if "dubious ownership" in found.stderr:
        raise InputError(
            "belongs to another user, so git and DVC refuse it",
            where=here,
            mend=f"if you trust it: git config --global --add safe.directory {here}",
        )
    raise InputError(
        "is no git repository, as a downloaded archive is none",
        where=here,
        mend="clone it with git, or tell DVC: dvc config core.no_scm true",
    )


def _without_git(root: Path) -> bool:
    """Whether DVC was told to work without git."""
    config = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        config.read([root / ".dvc/config", root / ".dvc/config.local"], encoding="utf-8")
        return config.getboolean("core", "no_scm", fallback=False)
    except (configparser.Error, ValueError, OSError):
        return False


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(prog="python -m pipelines.checkout", description=__doc__).parse_args()
    check()


if __name__ == "__main__":
    stage.run(main)
