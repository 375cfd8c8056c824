"""What a run records about itself, so that a sceptic can ask where a number comes from."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.machine import cpu_name, instructions

PACKAGES = (
    "torch",
    "torchvision",
    "lightning-fabric",
    "torchmetrics",
    "numpy",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "mmdet",
    "torchreid",
    "dvc",
)
NOT_CODE = (":!results", ":!dvc.lock", ":!params.yaml", ":!pipelines/code.yaml")


def provenance(
    *, seeds: Sequence[int], data: Mapping[str, Any], architecture_hash: str | None, started: float
) -> dict[str, Any]:
    """Commit, versions, hardware, threads, seeds, hashes of data and architecture, time, load and peak memory.

    Times are this process's: those of an interrupted run begin where it was taken up again.

    Args:
        seeds: All seeds of the run.
        data: Content hashes of the data by name.
        architecture_hash: Of the network that was trained, where there is one.
        started: ``time.time()`` at the start of the run.
    """
    import torch

    from search.kernels import native
    from search.processes import world

    cuda = torch.cuda.is_available()
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(time.time() - started, 3),
        "cpu_seconds": round(_processor_seconds(), 3),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "code": code_at_start(),
        "seeds": list(seeds),
        "data": dict(data),
        "architecture_hash": architecture_hash,
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        **instructions(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": native.running(),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "processes": world(),
    }


@functools.cache
def code_at_start() -> dict[str, Any]:
    """:func:`commit` of this suite when the program first asked, which :func:`pipelines.stage.run` does at its start.

    A long run goes on with the code that it loaded, whatever is committed beside it meanwhile.
    """
    return commit()


def commit(root: Path = Path(__file__).parent.parent) -> dict[str, Any]:
    """The commit of a checkout, and whether the files that a run depends on differ from it.

    What a run itself writes (``results/``, ``dvc.lock``) does not count, and neither does ``params.yaml``:
    choosing a profile rewrites it, and every record holds the values it ran with in its own ``params.json``.

    Args:
        root: Folder of the checkout (this suite's by default).

    Returns:
        ``commit`` (40 hex digits) and ``dirty``, both None outside a git checkout.
    """
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return {"commit": None, "dirty": None}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *NOT_CODE)
    return {"commit": revision, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _processor_seconds() -> float:
    """Of this process and of its children that have ended: unlike wall time, about the same on a busy machine."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
