"""Collect finished run records: ``runs/`` without weights to ``results/records/<profile>/``.

``python -m pipelines.collect`` copies the runs of the active profile. ``python -m pipelines.collect add
FOLDER --campaign NAME`` adds the records of a long run or of another machine under a name of their own.
Files are checked and copied unchanged, byte for byte.
"""

from __future__ import annotations

import argparse
import filecmp
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import code
from pipelines.results.checks import check_network, read_run, record_files
from pipelines.results.run import NETWORK_FILE, RUN_FILE, STAGES
from pipelines.results.values import PART
from pipelines.stage import output_folder, run
from search.errors import InputError

if TYPE_CHECKING:
    from pipelines.params import Params

RUNS = Path("runs")
RECORDS = Path("results/records")
PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,79}")


def expected(params: Params) -> set[str]:
    """The folders below runs/ that the settings name; any other is left from another profile."""
    return {folder.as_posix() for folder in params.folders()}


def find_folders(source: Path, wanted: set[str] | None = None) -> list[Path]:
    """The run and network folders under ``source``, sorted; hidden (unfinished) folders are left out.

    Args:
        source: A runs/ folder.
        wanted: Only these, if given (see :func:`expected`).
    """
    if not source.is_dir():
        raise InputError("no such folder", where=source, mend="run the stages first: `dvc repro`")
    found = {path.parent for name in (RUN_FILE, NETWORK_FILE) for path in source.rglob(name)}
    for link in source.rglob("*"):
        if link.is_symlink() and link.is_dir() and not _hidden(link.relative_to(source)):
            raise InputError("is a link", where=link, mend="put the folder itself there")
    folders = sorted(path for path in found if not _hidden(path.relative_to(source)))
    for folder in folders:
        _check_place(source, folder)
    if wanted is not None:
        folders = [path for path in folders if _is_below(path.relative_to(source), wanted)]
    if not any((folder / RUN_FILE).exists() for folder in folders):
        named = "" if wanted is None else " that the active profile names"
        raise InputError(f"no finished run{named}", where=source)
    return folders


def _hidden(path: Path) -> bool:
    """Whether a path is that of unfinished work."""
    return any(part.startswith(".") for part in path.parts)


def _check_place(source: Path, folder: Path) -> None:
    """A run lies in a stage's folder, under names that can be folders of results/."""
    parts = folder.relative_to(source).parts
    if not parts or parts[0] not in (*STAGES, "networks"):
        raise InputError(
            "a run outside the folders of the stages", where=folder, mend="give the runs/ folder"
        )
    for part in parts:
        if not re.fullmatch(PART, part):
            raise InputError(f"{part!r} cannot name a folder of a record", where=source, allowed=PART)


def _is_below(path: Path, wanted: set[str]) -> bool:
    return any(part.as_posix() in wanted for part in (path, *path.parents))


def copy_records(source: Path, target: Path, wanted: set[str] | None = None) -> int:
    """Check every run under ``source`` and copy its record files below ``target``.

    A record that is already there must be identical: a result is never overwritten by another one.

    Returns:
        The number of run records.

    Raises:
        InputError: For the first folder that is no proper record; nothing has been copied then.
    """
    folders = find_folders(source, wanted)
    for folder in folders:
        (read_run if (folder / RUN_FILE).exists() else check_network)(folder)
    pairs = [(path, target / path.relative_to(source)) for folder in folders for path in record_files(folder)]
    for path, copy in pairs:
        if copy.exists() and not filecmp.cmp(path, copy, shallow=False):
            raise InputError(
                "a different record has this place already", where=copy, mend="choose another --campaign name"
            )
    for path, copy in pairs:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return sum((folder / RUN_FILE).exists() for folder in folders)


def collect(
    runs: Path = RUNS, records: Path = RECORDS, profile: str = "quick", wanted: set[str] | None = None
) -> int:
    """Replace the records of ``profile`` by those of the finished runs it names; returns their number."""
    with output_folder(records / profile) as folder:
        return copy_records(runs, folder, wanted)


def add(source: Path, profile: str, active: str, records: Path = RECORDS) -> int:
    """Add the records under ``source`` as campaign ``profile``; returns their number.

    Raises:
        InputError: If the name cannot be a folder's, or is the active profile's, which `collect` owns.
    """
    if not PROFILE_NAME.fullmatch(profile):
        raise InputError(
            f"{profile!r} cannot name a campaign", where="--campaign", allowed=PROFILE_NAME.pattern
        )
    if profile == active:
        raise InputError(
            f"{profile!r} is the active profile, `dvc repro` rewrites its records",
            where="--campaign",
            mend="give the added runs a name of their own, such as paper-h100",
        )
    return copy_records(source, records / profile)


def main() -> None:
    """Read the command line and collect."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.collect", description=__doc__)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command")
    adder = commands.add_parser("add", help="add the records of a long run or of another machine")
    adder.add_argument("folder", type=Path, help="the runs/ folder of the other machine")
    adder.add_argument(
        "--campaign",
        "--profile",
        dest="campaign",
        required=True,
        help="the name the campaign gets under results/records/",
    )
    arguments = parser.parse_args()
    from pipelines.params import load

    settings = load()
    active = settings.profile
    if arguments.command == "add":
        count, name = add(arguments.folder, arguments.campaign, active), arguments.campaign
    else:
        code.check("collect")
        count, name = collect(profile=active, wanted=expected(settings)), active
    print(f"{count} run records in {RECORDS / name}")


if __name__ == "__main__":
    run(main)
