#!/usr/bin/env python3
"""Optional: build mmcv with its compiled operators, and install it in place of mmcv-lite.

No prebuilt wheel exists for current torch versions. The stock build reads torch's headers again for each of
its 78 source files (22 minutes on two cores); here they are read once, as a precompiled header, and debug
information is left out (about 3 minutes). The wheel is kept in the user's cache folder and used again.
The suite runs without it, on mmcv-lite: this is for operators that torchvision has no equivalent of.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

VERSION = "2.1.0"
FLAGS = ("-DNDEBUG", "-fwrapv", "-g0", "-O2", "-w")


def wheel_folder() -> Path:
    """Where wheels for this Python and torch are kept."""
    import torch

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tag = f"mmcv-{VERSION}-torch{torch.__version__}-{sys.implementation.cache_tag}"
    return cache / "cp-nas-bench" / "wheels" / tag


def precompile(folder: Path) -> list[str]:
    """Precompile torch's headers into ``folder``; give the flags that make the build use them.

    g++ takes a precompiled header only if the build has exactly its flags, and says so only when asked
    (-Winvalid-pch). setuptools' CFLAGS replaces the interpreter's flags, so both sides get the same full set.
    """
    from torch.utils import cpp_extension

    header = folder / "torch_headers.h"
    header.write_text("#include <torch/types.h>\n#include <vector>\n")
    includes = [f"-I{path}" for path in (*cpp_extension.include_paths(), sysconfig.get_paths()["include"])]
    macros = ["-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    options = [*FLAGS, "-fPIC", *includes, "-std=c++17", *macros, "-x", "c++-header"]
    subprocess.run([*compiler, *options, str(header), "-o", f"{header}.gch"], check=True)
    return ["-Winvalid-pch", f"-I{folder}", "-include", header.name]


def build(target: Path, jobs: int) -> Path:
    """Build the wheel for CPU into ``target`` and give its path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = " ".join([*FLAGS, *precompile(folder)])
        settings = {"CFLAGS": flags, "MAX_JOBS": str(jobs), "MMCV_WITH_OPS": "1", "FORCE_CUDA": "0"}
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-build-isolation",
            "--no-deps",
            "--no-cache-dir",
        ]
        environment = {**os.environ, **settings, "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([*command, "--wheel-dir", name, f"mmcv=={VERSION}"], check=True, env=environment)
        built = next(folder.glob("mmcv-*.whl"))
        target.mkdir(parents=True, exist_ok=True)
        partial = target / f"{built.name}.part"
        shutil.copyfile(built, partial)
        return partial.replace(target / built.name)


def install(wheel: Path) -> None:
    """Put the compiled mmcv in the place of mmcv-lite, whose files have the same names."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    owners = importlib.metadata.packages_distributions().get("mmcv", [])
    if owners:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *sorted(set(owners))], check=True)
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    check = "import torch, mmcv.ops; b = torch.tensor([[0., 0, 9, 9]]); mmcv.ops.nms(b, torch.ones(1), 0.5)"
    subprocess.run([sys.executable, "-c", check], check=True)


def main() -> None:
    """Build the wheel if it is not in the cache, and install it on request."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="install the wheel in place of mmcv-lite")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="compiler processes")
    arguments = parser.parse_args()
    folder = wheel_folder()
    kept = sorted(folder.glob("mmcv-*.whl"))
    try:
        wheel = kept[0] if kept else build(folder, arguments.jobs)
        if arguments.install:
            install(wheel)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"error: {Path(error.cmd[0]).name} failed, see above; a C++17 compiler is needed"
        ) from None
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error.filename} is missing; install g++ (or set CXX)") from None
    print(wheel)


if __name__ == "__main__":
    main()
