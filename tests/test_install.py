"""The suite as an installed distribution, imported from another folder, and beside a stranger's `search`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "downstream", "pipelines")
FILES = ("py", "yaml", "json", "c", "h", "j2", "css", "js")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pip install` puts the packages into, from a copy of the source."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def python(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_every_file_is_installed(installed: Path) -> None:
    """Profiles, templates, genotypes and C sources included."""
    for package in PACKAGES:
        for ending in FILES:
            here = {
                str(p.relative_to(ROOT))
                for p in (ROOT / package).rglob(f"*.{ending}")
                if "_build" not in p.parts
            }
            there = {str(p.relative_to(installed)) for p in (installed / package).rglob(f"*.{ending}")}
            assert here == there, (package, ending)


def test_it_is_imported_from_another_folder(installed: Path, tmp_path: Path) -> None:
    script = "import search, downstream, pipelines; print(search.__file__, downstream.__file__, pipelines.__file__)"
    done = python(tmp_path, "-c", script, path=str(installed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / name / "__init__.py") for name in PACKAGES]
    done = python(tmp_path, "-m", "pipelines.profile", "use", "quick", path=str(installed))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "params.yaml").read_bytes() == (ROOT / "pipelines/profiles/quick.yaml").read_bytes()


@pytest.mark.parametrize("package", ["search", "downstream"])
def test_a_strangers_package_is_named(package: str, installed: Path, tmp_path: Path) -> None:
    """Its name is a common one: a program stops with one line, an import with an ImportError of one."""
    stranger = tmp_path / "elsewhere" / package
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("def search(): ...\n")
    path = os.pathsep.join((str(stranger.parent), str(installed)))
    for program in (("-m", "pipelines.profile"), (str(installed / "bin" / "cpnas"), "profile")):
        done = python(tmp_path, *program, "list", path=path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"another package '{package}' is found first, at {stranger / '__init__.py'}" in line
    done = python(tmp_path, "-c", "import pipelines", path=path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("ImportError: another package")
