"""The C code: its sources, the instruction sets it is built for, and its functions."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from search.errors import InputError
from search.kernels.build import AVX2, AVX512, FORCED, PORTABLE, BuildError, Library, Variant

SOURCES = Path(__file__).parent / "csrc"
VPOPCNT = Variant(
    "avx512-vpopcntdq",
    (*AVX512.flags, "-mavx512vpopcntdq"),
    AVX512.features | {"avx512_vpopcntdq"},
)
_CODE = ("plan", "rows", "sign", "popcount", "binary", "depthwise", "real", "pool")
_HEADERS = ("packed", "plan", "popcount", "emit")
LIBRARY = Library(
    "packed",
    tuple(SOURCES / f"{name}.c" for name in _CODE),
    tuple(SOURCES / f"{name}.h" for name in _HEADERS),
    (VPOPCNT, AVX512, AVX2, PORTABLE),
)
"""The packed networks' kernels; all variants compute the same bits."""


@functools.cache
def library(variant: str | None = None) -> ctypes.CDLL:
    """The compiled code.

    Args:
        variant: Name of the instruction set; by default the best that this CPU has, or that of ``CP_NAS_KERNELS``
            (``off`` concerns training alone: a packed network has no other way to run).

    Raises:
        InputError: If it cannot be built here, or this CPU has no such instruction set.
    """
    try:
        loaded = LIBRARY.load(_variant(variant))
    except BuildError as error:
        raise InputError(f"packed networks need the C kernels: {error}", mend="install gcc") from None
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    loaded.packed_prepare.restype = pointer
    loaded.packed_prepare.argtypes = [pointer, integer, pointer, integer, pointer, pointer]
    loaded.packed_prepare.argtypes += [integer, integer, integer, ctypes.c_char_p]
    loaded.packed_run.restype = None
    loaded.packed_run.argtypes = [pointer, pointer, integer, pointer]
    loaded.packed_profile.restype = None
    loaded.packed_profile.argtypes = [pointer, pointer, pointer]
    loaded.packed_repeat.restype = None
    loaded.packed_repeat.argtypes = [pointer, integer, integer]
    loaded.packed_shape.restype = None
    loaded.packed_shape.argtypes = [pointer, integer, pointer]
    loaded.packed_bytes.restype = ctypes.c_size_t
    loaded.packed_bytes.argtypes = [pointer]
    loaded.packed_free.restype = None
    loaded.packed_free.argtypes = [pointer]
    loaded.packed_variant.restype = ctypes.c_char_p
    loaded.packed_variant.argtypes = []
    return loaded


def runnable_variants() -> list[str]:
    """Names of the instruction sets that this CPU runs, the best first."""
    return [variant.name for variant in LIBRARY.variants if variant.runs_here]


def _variant(name: str | None) -> Variant:
    if name is None and os.environ.get(FORCED) != "off":
        return LIBRARY.choose()
    if name is None:
        name = runnable_variants()[0]
    if name not in runnable_variants():
        raise InputError(
            f"{name!r} is no instruction set of this CPU", allowed=", ".join(runnable_variants())
        )
    return next(variant for variant in LIBRARY.variants if variant.name == name)
