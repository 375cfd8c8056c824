"""Profiles: complete params files, or changes to one. ``python -m pipelines.profile use NAME`` makes one active.

A profile with the line ``base: OTHER`` holds only what differs from the profile OTHER: mappings are merged, lists
replaced. Its ``search.method`` replaces the other's as a whole, but an entry begins with the settings of the other's
entry of the same method, so that ``cp_nas_beta0: {method: cp_nas, beta_p: 0.0}`` is enough. Where a list of networks
is the word ``searched``, all networks that the profile searches are meant. params.yaml is always complete.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipelines import params, stage
from search.errors import InputError, nearest
from search.files import atomic
from search.settings import merged

FOLDER = Path(__file__).parent / "profiles"
SEARCHED = "searched"
LINE = 110


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


def load(name: str) -> params.Params:
    """A profile's settings, checked."""
    return params.check(values_of(name), path_of(name))


def values_of(name: str) -> dict[str, Any]:
    """A profile's complete values, unchecked."""
    values = params.read(path_of(name))
    if "base" not in values:
        return values
    base = params.read(path_of(values["base"]))
    if "base" in base:
        raise InputError(
            f"its base {values['base']!r} has a base itself",
            where=path_of(name),
            mend="name a complete profile",
        )
    try:
        return _extended(base, {key: value for key, value in values.items() if key != "base"})
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            "does not fit onto its base", where=path_of(name), mend="compare their keys"
        ) from None


def text_of(name: str) -> str:
    """The text of params.yaml for a profile: its file, or what it makes of its base."""
    own = params.read(path_of(name))
    if "base" not in own:
        return path_of(name).read_text(encoding="utf-8")
    head = f"# Profile {name}: {own['base']} with the changes in pipelines/profiles/{name}.yaml, which says why.\n"
    return head + yaml.dump(
        values_of(name),
        Dumper=_Plain,
        sort_keys=False,
        default_flow_style=None,
        width=LINE,
        allow_unicode=True,
    )


class _Plain(yaml.SafeDumper):
    """Writes every value in full: no anchors where two keys hold the same list."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an alias."""
        return True


def _extended(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    values = merged(base, changes)
    search, runs = values["search"], values["runs"]
    if "method" in changes.get("search", {}):
        bases = base["search"]["method"]
        search["method"] = {
            variant: merged(bases.get(entry.get("method", variant), {}), entry)
            for variant, entry in changes["search"]["method"].items()
        }
    found = [f"{variant}-s{seed}" for variant in search["methods"] for seed in search["seeds"]]
    if runs["cost"] == SEARCHED:
        runs["cost"] = found
    for task in params.TASKS:
        if runs[task]["networks"] == SEARCHED:
            runs[task]["networks"] = found
    return values


def use(name: str, target: Path = params.PARAMS) -> None:
    """Check a profile and write it to ``target``; an edited params.yaml is kept beside it as params.yaml.orig."""
    load(name)
    text = text_of(name).encode()
    if target.exists() and target.read_bytes() not in (
        text,
        *(text_of(other).encode() for other in names()),
    ):
        shutil.copy2(target, f"{target}.orig")
        print(f"{target} had changes of yours: kept as {target}.orig")
    with atomic(target) as temporary:
        temporary.write_bytes(text)
    print(f"{target} is now the profile {name}")
    for key, path in absent(load(name)):
        print(f"still to be provided: {path} ({key})")


def absent(settings: params.Params) -> list[tuple[str, str]]:
    """The folders and files of the user's that the settings name and that are not there, with their keys."""
    named = {f"data.{name}.folder": section.folder for name, section in settings.data}
    for task, recipe in settings.retrain:
        if getattr(settings.runs, task).networks:
            named[f"retrain.{task}.loss.teacher"] = recipe.loss.teacher
    return [(key, path) for key, path in named.items() if path is not None and not Path(path).exists()]


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
        if params.PARAMS.exists():
            params.load()
            print(f"{params.PARAMS}: valid")
        for name in names():
            load(name)
            print(f"{path_of(name).name}: valid")


if __name__ == "__main__":
    stage.run(main)
