from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torchvision

from tools import repair_torchvision as repair

ROOT = Path(__file__).parents[2]
NEEDS_COMPILER = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "nm", "readelf"))), reason="needs gcc and binutils"
)
CUDA_FUNCTION = "_ZN3c104cuda12device_countEv"
CUDA_VARIABLE = "_ZN3c104cuda20CUDACachingAllocator9allocatorE"

LIBRARY = f"""
extern void {CUDA_FUNCTION}(void);
extern void *{CUDA_VARIABLE}[];
extern void _ZN3c105otherEv(void);
int answer(void) {{ return 42; }}
void never(void) {{ {CUDA_FUNCTION}(); _ZN3c105otherEv(); }}
void *place(void) {{ return {CUDA_VARIABLE}; }}
"""


def compile_library(folder: Path, path: str = "/a/path/long/enough/to/hold/the/new/one") -> Path:
    """A library like torchvision's: it wants CUDA symbols, and has a search path that leads nowhere."""
    source, library = folder / "library.c", folder / "library.so"
    source.write_text(LIBRARY)
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-rpath,{path}"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(source)], check=True)
    return library


def snapshot() -> dict[str, tuple[int, int]]:
    package = Path(torchvision.__file__).parent
    files = [*package.glob("*.so"), *(package.parent / "torchvision.libs").glob("*")]
    return {str(file): (file.lstat().st_ino, file.lstat().st_mtime_ns) for file in files}


def test_a_torchvision_that_works_is_left_alone() -> None:
    before = snapshot()
    command = [sys.executable, str(ROOT / "tools" / "repair_torchvision.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "torchvision: works as installed\n"
    assert snapshot() == before


@NEEDS_COMPILER
def test_only_the_missing_cuda_symbols_are_found(tmp_path: Path) -> None:
    assert repair.missing_symbols(compile_library(tmp_path)) == {CUDA_FUNCTION, CUDA_VARIABLE}


@NEEDS_COMPILER
def test_the_stub_lets_the_library_load(tmp_path: Path) -> None:
    library = compile_library(tmp_path)
    stub = tmp_path / "libstub.so"
    repair.compile_stub(repair.stub_source({CUDA_FUNCTION, CUDA_VARIABLE}), stub)
    load = f"import ctypes; ctypes.CDLL({str(stub)!r}, ctypes.RTLD_GLOBAL); "
    load += f"print(ctypes.CDLL({str(library)!r}, os.RTLD_LAZY).answer())"
    alone = f"import os, ctypes; ctypes.CDLL({str(library)!r}, os.RTLD_LAZY)"
    assert subprocess.run([sys.executable, "-c", alone], capture_output=True).returncode != 0
    done = subprocess.run([sys.executable, "-c", f"import os; {load}"], capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr
    assert ctypes.CDLL(str(stub), os.RTLD_LAZY)[CUDA_FUNCTION]


@NEEDS_COMPILER
def test_search_path_is_set_once_and_other_links_keep_the_old_file(tmp_path: Path) -> None:
    library = compile_library(tmp_path)
    cached = tmp_path / "cached.so"
    os.link(library, cached)
    before = cached.read_bytes()
    assert repair.set_search_path(library, "$ORIGIN/../x") is True
    assert "[$ORIGIN/../x]" in repair.output_of("readelf", "--dynamic", str(library))
    assert cached.read_bytes() == before
    assert len(library.read_bytes()) == len(before)
    assert repair.set_search_path(library, "$ORIGIN/../x") is False


@NEEDS_COMPILER
def test_a_search_path_without_room_is_an_error(tmp_path: Path) -> None:
    library = compile_library(tmp_path, path="/a")
    with pytest.raises(SystemExit, match="cannot be replaced"):
        repair.set_search_path(library, "$ORIGIN/../x")


def test_the_shipped_cuda_runtime_is_linked_by_its_plain_name(tmp_path: Path) -> None:
    (tmp_path / "libcudart.0a1b2c3d.so.13").write_text("x")
    repair.link_cuda_runtime(tmp_path)
    repair.link_cuda_runtime(tmp_path)
    assert os.readlink(tmp_path / "libcudart.so.13") == "libcudart.0a1b2c3d.so.13"
