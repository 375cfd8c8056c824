#!/usr/bin/env python3
"""Let a torchvision that was built for CUDA load beside a CPU-only torch; touch nothing where it loads.

Where a CPU build of torch meets the CUDA build of torchvision, ``import torchvision`` fails with "operator
torchvision::nms does not exist", although its CPU operators are complete: the loader wants libraries and
symbols that only a CUDA torch brings. The remedy has three parts, all inside the torchvision package:

1. ``libc10_cuda.so`` and ``libtorch_cuda.so``: stand-ins (a few KB, compiled here) that define the CUDA
   symbols which torchvision's libraries miss. Calling one aborts; a CPU torch never does.
2. ``libcudart.so.N``: a link to the real one, which the wheel ships under a hashed name.
3. the search path inside ``_C.so`` is set to the folder of the two.

A file is never changed in place: installers link the files of one cache into many environments.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARIES = ("_C.so", "image.so")
SEARCH_PATH = "$ORIGIN/../torchvision.libs"
CUDA_SYMBOL = re.compile(r"_ZNK?(3c10|2at)4cuda")
CHECK = "import torchvision, torchvision.io; torchvision.extension._assert_has_ops()"


def works() -> bool:
    """Whether torchvision imports in a fresh interpreter and has its operators."""
    return subprocess.run([sys.executable, "-c", CHECK], capture_output=True).returncode == 0


def torch_has_cuda() -> bool:
    """Whether the installed torch is a CUDA build, which needs another remedy than ours."""
    command = [sys.executable, "-c", "import torch, sys; sys.exit(torch.version.cuda is None)"]
    return subprocess.run(command, capture_output=True).returncode == 0


def output_of(*command: str) -> str:
    """The standard output of a binutils program."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing_symbols(library: Path) -> set[str]:
    """The names of the CUDA symbols that a shared library expects from others, versions cut off."""
    lines = output_of("nm", "--dynamic", "--undefined-only", str(library)).splitlines()
    names = {line.split()[-1].partition("@")[0] for line in lines if line.strip()}
    return {name for name in names if CUDA_SYMBOL.match(name)}


def stub_source(symbols: set[str]) -> str:
    """C source that defines every symbol: functions that abort, and zeroed space for the one variable."""
    lines = ["#include <stdlib.h>"]
    for symbol in sorted(symbols):
        is_variable = symbol.endswith("9allocatorE")  # c10::cuda::CUDACachingAllocator::allocator
        lines.append(f"void *{symbol}[64];" if is_variable else f"void {symbol}(void) {{ abort(); }}")
    return "\n".join(lines) + "\n"


def compile_stub(source: str, target: Path) -> None:
    """Compile C source into a shared library that answers to the name of ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "stub.c"
        code.write_text(source)
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-w",
            f"-Wl,-soname,{target.name}",
            "-o",
            f"{folder}/stub.so",
            str(code),
        ]
        subprocess.run(command, check=True)
        replace(target, Path(folder, "stub.so").read_bytes())


def replace(target: Path, content: bytes) -> None:
    """Put ``content`` at ``target`` as a new file: other links to the old one keep the old content."""
    mode = target.stat().st_mode if target.exists() else 0o755
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(target)


def link_cuda_runtime(folder: Path) -> None:
    """Link ``libcudart.so.N`` to the wheel's own copy, e.g. ``libcudart.0a1b2c3d.so.13``."""
    for shipped in folder.glob("libcudart.*.so.*"):
        link = folder / f"libcudart.so.{shipped.name.rpartition('.so.')[2]}"
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(shipped.name)


def set_search_path(library: Path, path: str) -> bool:
    """Overwrite the search path inside a shared library; False if it is already ``path``."""
    found = re.search(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", output_of("readelf", "--dynamic", str(library)))
    if found is None:
        raise SystemExit(
            f"error: {library.name} has no search path to mend; install a torchvision that fits this torch"
        )
    old = found.group(1)
    if old == path:
        return False
    content, place = library.read_bytes(), old.encode() + b"\0"
    if len(path) > len(old) or content.count(place) != 1:
        raise SystemExit(
            f"error: {library.name}: search path {old!r} cannot be replaced; install a fitting torchvision"
        )
    replace(library, content.replace(place, path.encode().ljust(len(old), b"\0") + b"\0"))
    return True


def repair(package: Path) -> int:
    """Apply the three parts to the torchvision in ``package``; give the number of symbols stood in for."""
    libraries = package.parent / "torchvision.libs"
    symbols = set().union(*(missing_symbols(package / name) for name in LIBRARIES))
    compile_stub(stub_source(symbols), libraries / "libc10_cuda.so")
    compile_stub("typedef int nothing;\n", libraries / "libtorch_cuda.so")
    link_cuda_runtime(libraries)
    set_search_path(package / "_C.so", SEARCH_PATH)
    return len(symbols)


def main() -> None:
    """Repair the installed torchvision if, and only if, it does not work."""
    if works():
        print("torchvision: works as installed")
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: torchvision is not installed")
    if torch_has_cuda():
        raise SystemExit(
            "error: torchvision does not load beside this CUDA torch; install the pair that belongs together"
        )
    try:
        count = repair(Path(next(iter(spec.submodule_search_locations))))
    except FileNotFoundError as error:
        raise SystemExit(
            f"error: {error.filename} is missing; gcc and binutils are needed to mend torchvision"
        ) from None
    if not works():
        raise SystemExit("error: torchvision still does not load; install a build that fits this torch")
    print(f"torchvision: built for CUDA beside a CPU torch; {count} symbols stood in for, works")


if __name__ == "__main__":
    main()
