"""What of a machine can change a number: the processor, its instructions, and which of them the libraries use."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

_FEATURE = re.compile(r"sse4|avx|amx|fma|f16c|neon|asimd|sve")


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def instructions() -> dict[str, Any]:
    """Vector instructions: those of the processor, and the sets that PyTorch and oneDNN chose on it.

    Returns:
        ``cpu_features``: names, sorted; ``aten``: such as ``AVX512``; ``onednn``: version and instruction set as the
        library prints them, None where PyTorch is built without it.
    """
    import torch

    found = torch.cpu.get_capabilities()
    features = sorted(name for name, has in found.items() if has is True and _FEATURE.match(name))
    return {
        "cpu_features": features,
        "aten": torch.backends.cpu.get_cpu_capability(),
        "onednn": onednn(),
    }


@functools.cache
def onednn() -> dict[str, str] | None:
    """oneDNN's version and instruction set, ``ONEDNN_MAX_CPU_ISA`` included: read from what it prints of itself.

    It has no function for it that PyTorch exports, and prints once a process: so the answer is kept.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return None
    x, weight = torch.zeros(16, 16, 32, 32), torch.zeros(16, 16, 3, 3)
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                torch.nn.functional.conv2d(x, weight)
            ctypes.CDLL(None).fflush(None)  # what the library wrote is in C's buffer, not in Python's
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        text = file.read().decode(errors="replace")
    version = re.search(r"info,oneDNN (\S+)", text)
    isa = re.search(r"info,cpu,isa:(.+)", text)
    return {
        "version": version.group(1) if version else "not said",
        "isa": isa.group(1).strip() if isa else "not said",
    }
