"""Freed memory is used again: counted in page faults, not in time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
from search.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for repetition in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(48_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_large_blocks_cause_no_page_faults_once_they_were_used() -> None:
    """48 MB are more than glibc ever keeps by itself: 11,719 pages of 4 KiB, ten times."""
    faults = {}
    for mode in ("keep", "default"):
        command = [sys.executable, "-c", PROGRAM, mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        faults[mode] = int(done.stdout)
    assert faults["keep"] < 1_000 < 10_000 < faults["default"]
