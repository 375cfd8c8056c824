"""How the C library hands out memory: keep what is freed, because the next step asks for it again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), from glibc's malloc.h."""
KEPT = 2**30
"""Bytes: blocks below it come from the heap, and so much free memory may stay at the heap's end."""


def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks of up to 1 GiB instead of returning them to the system after each use.

    By default it maps blocks above a threshold, which stops to grow at 32 MiB, anew every time, and gives the heap's
    end back when 64 MiB of it are free. A training step then meets the same memory as fresh pages, each of
    which costs a page fault: a tenth of a 1-bit network's step on the CPU (tests/benchmarks).

    Returns:
        Whether it took effect: False with another C library, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_THRESHOLD, KEPT) == 1, mallopt(M_TRIM_THRESHOLD, KEPT) == 1])
