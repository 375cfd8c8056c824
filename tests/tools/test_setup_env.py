from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tools import setup_env

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_requirements() -> set[str]:
    """Every package that pyproject.toml asks for, directly or not, and that is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    seen: set[str] = set()
    while todo:
        requirement = Requirement(todo.pop())
        marker = requirement.marker
        if plain(requirement.name) in seen or (marker is not None and not marker.evaluate({"extra": ""})):
            continue
        try:
            todo += metadata.distribution(requirement.name).requires or []
        except metadata.PackageNotFoundError:
            continue
        seen.add(plain(requirement.name))
    return seen


def copy_inputs(folder: Path) -> Path:
    for name in setup_env.INPUTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_a_complete_environment_is_left_alone(tmp_path: Path) -> None:
    clone, venv = copy_inputs(tmp_path / "clone"), tmp_path / "venv"
    venv.mkdir()
    (venv / setup_env.STAMP).write_text(setup_env.fingerprint(ROOT))
    command = [sys.executable, str(clone / "tools" / "setup_env.py"), "--venv", str(venv)]
    done = subprocess.run(command, capture_output=True, text=True)
    hint = f"for commands of your own: source {venv}/bin/activate\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, hint, "")
    assert [path.name for path in venv.iterdir()] == [setup_env.STAMP]


@pytest.mark.parametrize("changed", setup_env.INPUTS)
def test_every_input_decides_the_fingerprint(changed: str, tmp_path: Path) -> None:
    clone = copy_inputs(tmp_path)
    assert setup_env.fingerprint(clone) == setup_env.fingerprint(ROOT)
    with (clone / changed).open("a") as stream:
        stream.write("\n# changed\n")
    assert setup_env.fingerprint(clone) != setup_env.fingerprint(ROOT)


def test_uv_gets_the_package_sources_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example https://b.example")
    environment = setup_env.uv_environment(Path(sys.executable))
    assert environment["UV_FIND_LINKS"] == "/wheels,/more"
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert environment["UV_INDEX"] == "https://a.example https://b.example"
    assert environment["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_uv_settings_of_the_user_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")
    assert setup_env.uv_environment(Path(sys.executable))["UV_FIND_LINKS"] == "/mine"


def test_settings_come_from_pips_own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = /a\nfind-links = /b\n[install]\nfind-links =\n  /from\n  /file\n"
    )
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    found = setup_env.pip_settings(Path(sys.executable))
    assert (found["index-url"], found["find-links"]) == ("/a", "/from /file")


def test_constraints_pin_every_requirement_without_local_label_or_host() -> None:
    """A CPU and a CUDA build of torch satisfy the pins; a CUDA torch pins its own nvidia packages."""
    for name, version in pins().items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name
        assert re.fullmatch(r"[0-9a-z.]+", version), f"{name}: {version}"
    required = installed_requirements()
    assert {"torch", "mmdet", "torchreid", "dvc", "pytest", "ruff", "pygit2"} <= required
    missing = required - {plain(name) for name in pins()}
    assert not {name for name in missing if not name.startswith(("cuda", "nvidia", "triton"))}


def test_an_environment_whose_path_has_a_space(tmp_path: Path) -> None:
    """`make env VENV="a b"`: one path for the tool, for PATH, and for the shell that the hint is pasted into."""
    # Without the flags of the `make test` that these tests may run under: it prints the folders it enters.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    recipe = ["make", "-n", "env", "VENV=a b"]
    told: dict[str, Any] = {"cwd": setup_env.ROOT, "env": ours, "capture_output": True, "text": True}
    printed = subprocess.run(recipe, check=True, **told).stdout
    assert '--venv "a b"' in printed
    shown = ["make", "--eval", "show:;@echo $(BIN)", "show"]
    for given, bin_folder in (
        ("a b", f"{setup_env.ROOT}/a b/bin"),
        ("/a b", "/a b/bin"),
        (".venv", ".venv/bin"),
    ):
        done = subprocess.run([*shown, f"VENV={given}"], **told)
        assert done.stdout.strip().endswith(bin_folder) and done.stdout.startswith("/")
    assert (
        setup_env.hint(tmp_path / "a b") == f"for commands of your own: source '{tmp_path}/a b/bin/activate'"
    )
    assert setup_env.hint(Path.cwd() / ".venv") == "for commands of your own: source .venv/bin/activate"
