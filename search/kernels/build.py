"""Compile C sources into one shared library for each instruction set, and load the best one that this CPU has.

One environment serves the mixed machines of a cluster: every variant is built from the same sources with other
flags, and which one is loaded is decided at run time. The flags allow no reordering of float sums and no fused
multiply-add, so that all variants compute the same numbers bit for bit.

``python -m search.kernels.build MODULE...`` builds every variant of the modules' ``LIBRARY`` (``make env`` does so);
a library that is missing or whose sources have changed is built where it is first needed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from search.errors import InputError, nearest
from search.files import user_cache

FLAGS = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-pthread",
    "-Wall",
    "-Werror=implicit-function-declaration",
)
FORCED = "CP_NAS_KERNELS"
"""Environment variable: the variant to use, by name, in place of the best one; ``off`` for none."""


class BuildError(Exception):
    """A library is not there and cannot be built: no compiler, or the compiler refused."""


@dataclass(frozen=True)
class Variant:
    """One instruction set to compile for.

    Attributes:
        name: Its name in files, records and ``CP_NAS_KERNELS``.
        flags: What the compiler gets.
        features: What the CPU must have, as ``/proc/cpuinfo`` names it.
    """

    name: str
    flags: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()

    @property
    def runs_here(self) -> bool:
        """Whether this CPU has all that the variant needs."""
        return self.features <= cpu_features()


PORTABLE = Variant("portable")
AVX2 = Variant("avx2", ("-mavx2", "-mpopcnt", "-mbmi2"), frozenset({"avx2", "popcnt", "bmi2"}))
AVX512 = Variant(
    "avx512",
    (
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mpopcnt",
        "-mbmi2",
        "-mprefer-vector-width=512",
    ),
    frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "popcnt", "bmi2"}),
)
VARIANTS = (AVX512, AVX2, PORTABLE)
"""The best first; other machines than x86-64 have the portable one alone."""


@functools.cache
def cpu_features() -> frozenset[str]:
    """What this CPU can do and its system allows, as Linux names it; empty where that is not told."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


@dataclass(frozen=True)
class Library:
    """C sources that become one shared library a variant.

    Attributes:
        name: Begins the libraries' file names.
        sources: The files to compile, in order.
        headers: Files that they include; they count for whether a library is current.
        variants: The instruction sets, the best first; the last one runs everywhere.
    """

    name: str
    sources: tuple[Path, ...]
    headers: tuple[Path, ...] = ()
    variants: tuple[Variant, ...] = VARIANTS

    def path(self, variant: Variant, folder: Path) -> Path:
        """Where the library of the present sources lies or would lie: its name has their hash."""
        digest = hashlib.sha256(" ".join((platform.machine(), *FLAGS, *variant.flags)).encode())
        for source in (*self.sources, *self.headers):
            digest.update(f"\n{source.name}\n".encode() + source.read_bytes())
        return folder / f"{self.name}-{variant.name}-{digest.hexdigest()[:16]}.so"

    def built(self, variant: Variant) -> Path:
        """The library's path, after building it where it is not there.

        Raises:
            BuildError: If it is not there and cannot be built.
        """
        for folder in folders():
            if (path := self.path(variant, folder)).exists():
                return path
        return self._build(variant)

    def _build(self, variant: Variant) -> Path:
        compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
        if compiler is None:
            raise BuildError("no C compiler (gcc) is installed")
        path = self.path(variant, _writable_folder())
        handle, temporary = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".tmp", dir=path.parent)
        os.close(handle)
        command = [compiler, *FLAGS, *variant.flags, *map(str, self.sources), "-lm", "-o", temporary]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
            os.chmod(temporary, 0o755)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        if path.parent == folders()[0]:  # the user's cache may serve other versions of the sources too
            for stale in path.parent.glob(f"{self.name}-{variant.name}-*.so"):
                if stale != path:
                    stale.unlink(missing_ok=True)  # a process that has loaded it keeps it until it ends
        return path

    def choose(self) -> Variant:
        """The variant to use here: that of ``CP_NAS_KERNELS``, or the best that this CPU has.

        Raises:
            InputError: If the variable names a variant that is not there or that this CPU cannot run.
        """
        wanted = os.environ.get(FORCED, "")
        if not wanted:
            return next(variant for variant in self.variants if variant.runs_here)
        names = [variant.name for variant in self.variants if variant.runs_here]
        if wanted not in names:
            hint = nearest(wanted, names)
            raise InputError(
                f"{wanted!r} is no variant that this CPU runs"
                + (f", did you mean {hint!r}?" if hint else ""),
                where=FORCED,
                allowed=", ".join([*names, "off"]),
            )
        return next(variant for variant in self.variants if variant.name == wanted)

    def load(self, variant: Variant | None = None) -> ctypes.CDLL:
        """Load a variant, by default the one :meth:`choose` names; built where needed.

        Raises:
            BuildError: If it is not there and cannot be built.
        """
        return ctypes.CDLL(str(self.built(variant or self.choose())))


def folders() -> list[Path]:
    """Where libraries may lie: beside the sources, and in the user's cache where that cannot be written."""
    beside = Path(__file__).parent / "_build"
    try:
        return [beside, user_cache() / "kernels"]
    except InputError:  # a user without a home
        return [beside]


def _writable_folder() -> Path:
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise BuildError(f"none of {', '.join(map(str, folders()))} can be written")


def build_all(libraries: Sequence[Library]) -> list[Path]:
    """Build every variant of every library that this machine's compiler knows, side by side.

    Raises:
        BuildError: If one cannot be built.
    """
    x86 = platform.machine() in ("x86_64", "AMD64")
    wanted = [(lib, v) for lib in libraries for v in lib.variants if x86 or not v.features]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda pair: pair[0].built(pair[1]), wanted))


def main(modules: Sequence[str]) -> int:
    """Build the libraries of the modules named on the command line; without a compiler only say so."""
    libraries: list[Library] = [importlib.import_module(name).LIBRARY for name in modules]
    try:
        for path in build_all(libraries):
            print(path.name)
    except BuildError as error:
        print(f"warning: native kernels are not built, plain PyTorch runs instead: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
