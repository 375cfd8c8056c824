"""Profiles: complete settings, or changes to another's. ``python -m pipelines.profile use NAME`` makes one active.

params.yaml is always complete; :mod:`pipelines.layers` says how a profile is made of its file and its base's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines import code, stage
from pipelines.layers import Key, chain, flat, load, names, origins, path_of, values_of
from pipelines.settings_file import resolvers
from search.files import atomic

if TYPE_CHECKING:
    from pipelines.params import Params

LINE = 80
"""Where a line of params.yaml is broken at the next comma; PyYAML counts a little short."""


def text_of(name: str) -> str:
    """The text of params.yaml for a profile: its file, or what it makes of its base."""
    bases = chain(name)[1:]
    if not bases:
        return path_of(name).read_text(encoding="utf-8")
    head = f"# Profile {name}: {bases[0]} with the changes in pipelines/profiles/{name}.yaml,\n# which says why.\n"
    return head + yaml.dump(
        values_of(name),
        Dumper=_Plain,
        sort_keys=False,
        default_flow_style=None,
        width=LINE,
        allow_unicode=True,
    )


class _Plain(yaml.SafeDumper):
    """Writes every value in full: no anchors where two keys hold the same list, and text as what reads back as text."""

    yaml_implicit_resolvers = resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        """Never an alias."""
        return True


def shown(name: str, other: str | None = None) -> str:
    """A profile's values, one a line, and the profile in whose file each stands; or where it differs from another.

    Args:
        name: The profile.
        other: If given, only the values that differ from this profile's are shown, with both.

    Returns:
        Lines ``key: value  # profile``; with ``other``, ``key: value  # profile; OTHER has: value``.
    """
    load(name)
    values, places = flat(values_of(name)), origins(name)
    if other is None:
        return "\n".join(f"{_line(key, value)}  # {places[key]}" for key, value in values.items())
    load(other)
    others = flat(values_of(other))
    lines = []
    for key, value in values.items():
        if key not in others:
            lines.append(f"{_line(key, value)}  # {places[key]}; not in {other}")
        elif value != others[key]:
            lines.append(f"{_line(key, value)}  # {places[key]}; {other} has: {_text(others[key])}")
    absent = dict.fromkeys(_first_absent(key, values) for key in others if key not in values)
    return "\n".join([*lines, *(f"# {'.'.join(key)} stands in {other} alone" for key in absent)])


def _first_absent(key: Key, values: dict[Key, Any]) -> Key:
    """The shortest beginning of a key that no key of ``values`` has: the whole section that is not there."""
    beginnings = (key[:length] for length in range(1, len(key)))
    return next((part for part in beginnings if not any(k[: len(part)] == part for k in values)), key)


def _line(key: Key, value: Any) -> str:
    return f"{'.'.join(key)}: {_text(value)}"


def _text(value: Any) -> str:
    """A value in YAML, on one line."""
    text = yaml.dump(value, Dumper=_Plain, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


def use(name: str, target: Path = code.PARAMS) -> None:
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


def absent(settings: Params) -> list[tuple[str, str]]:
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
    listed = commands.add_parser("show", help="a profile's values and where each comes from")
    listed.add_argument("name")
    listed.add_argument("--diff", metavar="OTHER", help="only what differs from this profile")
    commands.add_parser("check", help="check params.yaml and every profile")
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(names()))
    elif arguments.command == "use":
        use(arguments.name)
        if code.NAME.exists():
            code.write()  # the variants of this profile, and its teachers
    elif arguments.command == "show":
        print(shown(arguments.name, arguments.diff))
    else:
        from pipelines import params

        if code.PARAMS.exists():
            params.load()
            print(f"{code.PARAMS}: valid")
        for name in names():
            load(name)
            print(f"{path_of(name).name}: valid")


if __name__ == "__main__":
    stage.run(main)
