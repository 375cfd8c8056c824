"""Profiles: complete params files. ``python -m pipelines.profile use NAME`` makes one the active params.yaml."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pipelines import params, stage
from search.errors import InputError, nearest
from search.files import atomic

FOLDER = Path(__file__).parent / "profiles"


def names() -> list[str]:
    """Names of all profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a profile."""
    if name not in names():
        hint = nearest(name, names())
        raise InputError(
            f"no profile {name!r}" + (f", did you mean {hint!r}?" if hint else ""), allowed=", ".join(names())
        )
    return FOLDER / f"{name}.yaml"


def use(name: str, target: Path = params.PARAMS) -> None:
    """Check a profile and copy it to ``target``; an edited params.yaml is kept beside it as params.yaml.orig."""
    source = path_of(name)
    params.load(source)
    text = source.read_bytes()
    if target.exists() and target.read_bytes() not in (
        text,
        *(path_of(other).read_bytes() for other in names()),
    ):
        shutil.copy2(target, f"{target}.orig")
        print(f"{target} had changes of yours: kept as {target}.orig")
    with atomic(target) as temporary:
        temporary.write_bytes(text)
    print(f"{target} is now the profile {name}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.profile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names of the profiles")
    chosen = commands.add_parser("use", help="make a profile the active params.yaml")
    chosen.add_argument("name")
    commands.add_parser("check", help="check params.yaml and every profile")
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(names()))
    elif arguments.command == "use":
        use(arguments.name)
    else:
        for path in [*([params.PARAMS] if params.PARAMS.exists() else []), *map(path_of, names())]:
            params.load(path)
            print(f"{path.name}: valid")


if __name__ == "__main__":
    stage.run(main)
