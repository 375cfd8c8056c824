"""Where a number comes from, in a few words: commit and device out of a run's provenance."""

from __future__ import annotations

from typing import Any


def commit(provenance: dict[str, Any]) -> str:
    """The first 8 digits of the code commit, with ``+`` if the tree had uncommitted changes."""
    code = provenance.get("code") or {}
    if not code.get("commit"):
        return "unknown"
    return f"{code['commit'][:8]}{'+' if code.get('dirty') else ''}"


def hardware(provenance: dict[str, Any]) -> str:
    """The GPU if one was used, otherwise the CPU with its number of threads."""
    if provenance.get("gpu"):
        return str(provenance["gpu"])
    threads = provenance.get("threads")
    words = "" if not threads else ", 1 thread" if threads == 1 else f", {threads} threads"
    return str(provenance.get("cpu") or "unknown") + words
