#!/usr/bin/env python3
"""Create the environment, or do nothing where it is complete and current.

Runs on a bare Python 3.11 or newer. A stamp in the environment holds the hash of every file that decides
its content, so a second call (or a call from another clone that shares the environment) ends at once.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = (
    "pyproject.toml",
    "constraints.txt",
    "tools/setup_env.py",
    "tools/repair_torchvision.py",
    "downstream/detection/operators.py",
)
EXTRAS = "detection,reid,pipeline,onnx,dev"
STAMP = ".cp-nas-bench-ready"
OLDEST = (3, 11)


def fingerprint(root: Path) -> str:
    """The sha256 over the names and bytes of the files that decide what is installed."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update(f"{name}\n".encode() + (root / name).read_bytes())
    return digest.hexdigest()


def pip_settings(python: Path) -> dict[str, str]:
    """What pip is configured with for installing, e.g. ``find-links``: from its variables and its files."""
    command = [str(python), "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    values = {key: str(ast.literal_eval(value)) for key, _, value in (line.partition("=") for line in lines)}
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # a later one wins, as in pip
        found |= {key.removeprefix(section): v for key, v in values.items() if key.startswith(section)}
    return {name: " ".join(value.split()) for name, value in found.items()}


def uv_environment(python: Path) -> dict[str, str]:
    """The environment for uv, with pip's package sources.

    uv does not read pip's settings, so without this a folder of wheels that pip is pointed to (a CPU build of
    torch, say) would be missed and the CUDA build of several GB installed instead. A variable that the user
    has set for uv stands.
    """
    environment, settings = dict(os.environ), pip_settings(python)
    for variable, name in (
        ("UV_FIND_LINKS", "find-links"),
        ("UV_DEFAULT_INDEX", "index-url"),
        ("UV_INDEX", "extra-index-url"),
    ):
        value = settings.get(name)
        if value and variable not in environment:
            # find-links is a list separated by commas for uv, by spaces for pip
            environment[variable] = value.replace(" ", ",") if variable == "UV_FIND_LINKS" else value
    if "UV_INDEX" in environment:
        # pip takes the best version of all its sources; uv would stop at the first that has the name
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return environment


def pinned(package: str) -> str:
    """The line of constraints.txt that pins ``package``."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line
    raise SystemExit(f"error: constraints.txt does not pin {package}")


def create(venv: Path) -> Path:
    """Create the virtual environment if it is not there; give its interpreter."""
    python = venv / "bin" / "python"
    if not python.exists() and subprocess.run([sys.executable, "-m", "venv", str(venv)]).returncode:
        raise SystemExit("error: python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv")
    return python


def install(python: Path, installer: str) -> None:
    """Install this project with all extras at the pinned versions."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    target = ["--editable", f"{ROOT}[{EXTRAS}]", "--constraint", str(ROOT / "constraints.txt")]
    # a compiled mmcv (make mmcv-ops) and mmcv-lite own the same files: never the one over the other
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "mmcv"], check=True, stderr=subprocess.DEVNULL)
    if installer == "pip":
        subprocess.run([*pip, "install", "--quiet", *target], check=True)
        return
    subprocess.run([*pip, "install", "--quiet", pinned("uv")], check=True)
    uv = [str(python.parent / "uv"), "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*uv, *target], check=True, env=uv_environment(python))


def size_in_mib(folder: Path) -> int:
    """The disk space of a folder in MiB, hard links counted once."""
    seen = {(s.st_dev, s.st_ino): s.st_blocks for s in (p.lstat() for p in folder.rglob("*"))}
    return sum(seen.values()) * 512 // 2**20


def hint(venv: Path) -> str:
    """How a shell comes to find the programs of an environment; its path is quoted where it must be."""
    shown = venv.relative_to(Path.cwd()) if venv.is_relative_to(Path.cwd()) else venv
    return f"for commands of your own: source {shlex.quote(str(shown / 'bin/activate'))}"


def main() -> None:
    """Bring the environment to the state that the repository's files describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the environment (default .venv)")
    parser.add_argument("--installer", choices=("uv", "pip"), default="uv", help="default uv")
    arguments = parser.parse_args()
    if sys.version_info < OLDEST:
        raise SystemExit(
            f"error: Python {sys.version.split()[0]} is too old; 3.11 or newer is needed: "
            "make PYTHON=python3.11"
        )
    venv = arguments.venv.absolute()
    stamp, wanted = venv / STAMP, fingerprint(ROOT)
    if stamp.exists() and stamp.read_text() == wanted:
        print(hint(venv))
        return
    print(f"installing the environment into {venv} with {arguments.installer}", flush=True)
    start = time.monotonic()
    stamp.unlink(missing_ok=True)
    python = create(venv)
    try:
        install(python, arguments.installer)
        subprocess.run([str(python), str(ROOT / "tools" / "repair_torchvision.py")], check=True)
        # mmdet's own programs import mmcv's operators before they read any of our files
        operators = [str(python), "-m", "downstream.detection.operators", "--persist"]
        subprocess.run(operators, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        kernels = [
            str(python),
            "-m",
            "search.kernels.build",
            "search.kernels.native",
            "downstream.packed.native",
        ]
        subprocess.run(kernels, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        subprocess.run([str(python), "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"error: {Path(error.cmd[0]).name} failed, see above; run make env again to go on"
        ) from None
    stamp.write_text(wanted)
    print(f"environment ready: {time.monotonic() - start:.0f} s, {size_in_mib(venv)} MiB", flush=True)
    print(hint(venv))


if __name__ == "__main__":
    main()
