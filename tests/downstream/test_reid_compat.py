"""Both packagings of Torchreid: the installed one, and the same code as the classic top-level package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from downstream.reid.compat import PARTS, torchreid

ROOT = Path(__file__).parents[2]
PROBE = """
from downstream.reid import model
from downstream.reid.backbone import BackboneSpec
from downstream.reid.compat import torchreid

package = torchreid()
model.register("genotype_probe", BackboneSpec("DARTS_V2", "1bit", channels=4, cells=3))
network = package.models.build_model("genotype_probe", num_classes=3, pretrained=False)
print(package.__name__, type(network).__name__)
"""


def probe(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run :data:`PROBE` with ``folder`` in front of the installed packages."""
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=False
    )


def test_the_installed_packaging_has_every_part() -> None:
    assert all(hasattr(torchreid(), part) for part in PARTS)


def test_the_classic_packaging(tmp_path: Path) -> None:
    if importlib.util.find_spec("torchreid.reid") is None:
        pytest.skip("the installed torchreid is the classic packaging itself")
    installed = Path(str(torchreid().__file__)).parent
    classic = tmp_path / "torchreid"
    shutil.copytree(installed, classic, ignore=shutil.ignore_patterns("__pycache__"))
    for file in classic.rglob("*.py"):
        file.write_text(file.read_text().replace("torchreid.reid", "torchreid"))
    result = probe(tmp_path)
    assert result.stdout == "torchreid ReidNetwork\n", result.stderr


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "torchreid").mkdir()
    (tmp_path / "torchreid/__init__.py").touch()
    result = probe(tmp_path)
    assert result.stderr.splitlines()[-1] == (
        "search.errors.InputError: torchreid: this torchreid has no module 'data'"
    )
