"""Nothing in params.yaml reaches a shell or a path outside the project, whoever types `dvc repro`."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import params, profile
from search.errors import InputError

ROOT = Path(__file__).parents[2]
CI = profile.values_of("ci")
HOSTILE = [
    "; touch stolen",
    "$(touch stolen)",
    "`touch stolen`",
    "a b",
    "a\ntouch stolen\n",
    "'\ntouch stolen\n'",
    "a' ; touch stolen ; '",
    "../../mine",
    "/tmp/mine",
    "--help",
    ".",
    "",
    "a" * 300,
    "a\0b",
    "résnet",
]
"""Texts that no name and no number is."""
PLACES = (
    "runs.adopted",
    "runs.cost",
    "runs.cifar10.networks",
    "runs.cifar10.precisions",
    "runs.cifar10.seeds",
)
PLACES += ("runs.reid_zoo.networks", "runs.reid_zoo.seeds", "search.methods", "search.seeds")


def changed(place: str, value: object) -> dict[str, Any]:
    values = copy.deepcopy(CI)
    section: Any = values
    *parents, last = place.split(".")
    for key in parents:
        section = section[key]
    section[last] = value
    return values


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_in_commands_and_paths_is_a_name_or_a_number(place: str) -> None:
    for text in (*HOSTILE, ["a"], {"; touch stolen": 1}, None, 1.5, True, -1, 2**200):
        with pytest.raises(InputError) as error:
            params.check(changed(place, [text]), "params.yaml")
        assert place in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_variant_or_a_profile_has_a_plain_name(name: str) -> None:
    for values in (
        changed("search.method", {name: {"method": "bnas", "rounds": 1, "partial": 1}}),
        changed("profile", name),
    ):
        with pytest.raises(InputError):
            params.check(values, "params.yaml")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the files as they are now, with a folder of the user's that git does not know."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "mine").mkdir()
    (folder / "mine/work.txt").write_text("years")
    return folder


def repro(clone: Path, *arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`dvc repro` as a user types it; the folder ``first`` stands at the head of PATH."""
    path = os.pathsep.join(
        [*([str(first)] if first else []), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *arguments],
        cwd=clone,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(clone), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def untouched(clone: Path) -> bool:
    return not list(clone.rglob("stolen")) and (clone / "mine/work.txt").read_text() == "years"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["; touch stolen", "../../mine"])
def test_dvc_repro_ends_at_the_check(clone: Path, text: str) -> None:
    """DVC deletes a stage's outputs before it runs it: `../../mine` would be gone without the check."""
    (clone / "params.yaml").write_text(yaml.safe_dump(changed("runs.adopted", [text]), sort_keys=False))
    done = repro(clone, "adopt")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("error: params.yaml: runs.adopted")]
    assert "Traceback" not in done.stderr and "adopt@" not in done.stdout
    assert untouched(clone)


@pytest.mark.slow
def test_without_the_check_dvc_quotes(clone: Path, tmp_path: Path) -> None:
    """`dvc repro --single-item` leaves the check out: then every text is one argument of the command."""
    program = tmp_path / "bin/python"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint('ARGUMENTS', json.dumps(sys.argv[1:]))\nsys.exit(1)\n"
    )
    program.chmod(0o755)
    texts = [
        text
        for text in HOSTILE
        if "\0" not in text and text.strip("./") and not text.startswith(("../", "/"))
    ]
    (clone / "data").mkdir(exist_ok=True)
    (clone / "data/checked").write_text("an earlier check")
    (clone / "params.yaml").write_text(
        yaml.safe_dump(changed("runs.adopted", texts), sort_keys=False, allow_unicode=True)
    )
    done = repro(clone, "--single-item", "--keep-going", "adopt", first=program.parent)
    found = [json.loads(line[10:])[-1] for line in done.stdout.splitlines() if line.startswith("ARGUMENTS")]
    assert found == [text for text in texts if "\n" not in text]
    assert untouched(clone)


def test_every_command_takes_its_values_quoted() -> None:
    """In dvc.yaml no text of params.yaml stands in a command but by ``${item}``, which DVC quotes."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = [values["cmd"] for values in stages.values()]
    assert all("$" not in command.replace("${item}", "") for command in commands)
    for name, values in stages.items():
        outs = " ".join(next(iter(out)) if isinstance(out, dict) else out for out in values.get("outs", []))
        missing = [key for key in values.get("matrix", {}) if f"${{item.{key}}}" not in outs]
        assert not missing, f"{name}: a mapping in place of a scalar must end DVC's reading of {missing}"


def test_every_stage_is_built_on_the_check() -> None:
    from dvc.repo import Repo

    with contextlib.chdir(ROOT), Repo() as repo:
        graph = repo.index.graph
        (check,) = (stage for stage in graph if stage.addressing == "check")
        import networkx

        built = networkx.ancestors(graph, check)
        assert {stage.addressing for stage in graph} == {stage.addressing for stage in built} | {"check"}


def test_no_name_on_a_command_line_leads_out_of_the_project(tmp_path: Path) -> None:
    from pipelines.networks import load_entry

    for name in HOSTILE:
        with pytest.raises(InputError, match="names no network|no network"):
            load_entry(name, tmp_path / "networks")
