"""Fingerprints of the stage programs: ``python -m pipelines.code`` writes pipelines/code.yaml, DVC compares them.

A stage of dvc.yaml depends on a key of code.yaml and on no module. So a comment, a docstring, a message or the text of
``--help`` runs nothing again, and a search depends on the code of its own method alone
(:mod:`search.fingerprint` says what counts). The weight file of a recipe's teacher is there by its hash: DVC cannot
name a dependency that a profile may have or not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines import settings_file
from pipelines.datasets import sources
from search.errors import InputError
from search.files import sha256_file, write_text
from search.fingerprint import OPAQUE, ROOT, closure, fingerprint

NAME = Path("pipelines/code.yaml")
PARAMS = Path("params.yaml")
REFRESH = "run: python -m pipelines.code"
PLUMBING = (
    OPAQUE
    | {"pipelines"}
    | {
        f"pipelines.{name}"
        for name in ("code", "launch", "layers", "params", "provenance", "record", "settings_file", "stage")
    }
)
"""Modules that read, check or describe, and decide no number; nothing is followed through them."""


class Program(NamedTuple):
    """What a stage runs: a module, and files that decide its numbers and are no modules."""

    module: str
    data: tuple[str, ...] = ()


PROGRAMS = {
    "check": Program("pipelines.check"),
    "prepare_cifar10": Program("pipelines.datasets.cifar10"),
    "prepare_imagenet": Program("pipelines.datasets.image_folder"),
    "prepare_detection": Program("pipelines.datasets.detection"),
    "prepare_reid": Program("pipelines.datasets.orl"),
    "derive": Program("pipelines.derive"),
    "adopt": Program("pipelines.derive", ("search/published",)),
    "cost": Program("pipelines.cost"),
    "retrain": Program("pipelines.retrain"),
    "evaluate": Program("pipelines.evaluate"),
    "detect": Program("pipelines.detect", ("downstream/detection/configs",)),
    "reid": Program("pipelines.reid"),
    "collect": Program("pipelines.collect"),
    "tables": Program(
        "pipelines.tables",
        (
            "pipelines/checklist.yaml",
            "pipelines/claims.yaml",
            "pipelines/literature.yaml",
            "pipelines/templates",
        ),
    ),
}
"""By key of code.yaml; ``search`` is there by variant, with the code of the variant's method."""
SEARCH = "pipelines.search"
HEAD = "# What the code of each stage does, as a hash; dvc.yaml refers to it. Written by python -m pipelines.code.\n"


def of_stage(key: str, root: Path = ROOT) -> str:
    """The fingerprint of a key of :data:`PROGRAMS`."""
    program = PROGRAMS[key]
    return fingerprint(program.module, opaque=PLUMBING, data=program.data, root=root)


def of_method(method: str, root: Path = ROOT) -> str:
    """The fingerprint of the search stage when it runs one method."""
    return fingerprint(SEARCH, only=method, opaque=PLUMBING, root=root)


def teacher_hash(path: str | None) -> str:
    """What code.yaml says of a recipe's teacher: the weight file's hash, or why there is none."""
    if path is None:
        return "none"
    return f"sha256-{sha256_file(path)}" if Path(path).is_file() else "absent"


def current(root: Path = ROOT) -> dict[str, Any]:
    """What code.yaml should hold now, for the profiles and the params.yaml of this folder.

    Keys: those of :data:`PROGRAMS`; ``search`` by variant; ``teacher`` by task, the hash of the recipe's weight file;
    ``pictures`` by data set, the fingerprint of the user's folder.
    """
    from pipelines import layers

    profiles = [layers.values_of(name) for name in layers.names()]
    if PARAMS.exists():
        profiles.append(settings_file.read(PARAMS))
    methods = {
        name: entry.get("method", name)
        for values in profiles
        for name, entry in values["search"]["method"].items()
    }
    active = profiles[-1] if PARAMS.exists() else {"retrain": {}, "data": {}}
    return {
        **{key: of_stage(key, root) for key in PROGRAMS},
        "search": {name: of_method(method, root) for name, method in sorted(methods.items())},
        "teacher": {
            task: teacher_hash(recipe["loss"]["teacher"]) for task, recipe in active["retrain"].items()
        },
        "pictures": sources.fingerprints(active["data"]),
    }


def write(path: Path = NAME) -> bool:
    """Bring code.yaml up to date; says whether it was not."""
    text = HEAD + yaml.safe_dump(current(), sort_keys=False)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def check(key: str, now: str | None = None) -> None:
    """Refuse to run a stage whose code is another than code.yaml says, on which DVC relies.

    Nothing is checked in a folder that has no code.yaml: no graph refers to what is run there.

    Args:
        key: A key of code.yaml, such as ``derive`` or ``search.cp_nas``.
        now: What it should be; by default the stage's fingerprint.

    Raises:
        InputError: The file is stale, or belongs to other code than this program.
    """
    if not NAME.exists():
        return
    if NAME.resolve() != ROOT / NAME:
        raise InputError(
            f"this program is the code in {ROOT}, and the folder it runs in has code of its own",
            where=NAME,
            mend="run it by python -m in that folder, with PYTHONPATH unset or set to it",
        )
    found: Any = _read(NAME)
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found != (of_stage(key) if now is None else now):
        raise InputError(f"{key} is not the fingerprint of the code any more", where=NAME, mend=REFRESH)


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def main() -> None:
    """Refresh code.yaml, check it, or print what a fingerprint is made of."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.code", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 2 if it is stale")
    parser.add_argument(
        "--show", metavar="STAGE", help="the modules and files of a stage, or of search.METHOD"
    )
    options = parser.parse_args()
    if options.show is not None:
        print("\n".join(parts_of(options.show)))
    elif options.check:
        if _read(NAME) != current():
            raise InputError("is stale", where=NAME, mend=REFRESH)
    elif write():
        print(f"{NAME} is up to date again")


def parts_of(key: str) -> list[str]:
    """The modules, and the other files, that a key of code.yaml stands for."""
    name, _, method = key.partition(".")
    if name == "search":
        return closure(SEARCH, method or None, PLUMBING)
    if name not in PROGRAMS:
        raise InputError(f"no stage {key!r}", allowed=", ".join((*PROGRAMS, "search.METHOD")))
    return [*closure(PROGRAMS[name].module, None, PLUMBING), *PROGRAMS[name].data]


if __name__ == "__main__":
    from pipelines import stage

    stage.run(main)
