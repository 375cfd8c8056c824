"""What a transfer run says of the weights it started from: one line on stderr, and its place in run.json."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.files import sha256_file

if TYPE_CHECKING:
    from search.weights import LoadReport


def describe(weights: str | Path | None, loaded: LoadReport | None) -> dict[str, Any] | None:
    """``weights`` of run.json: the file's sha256 and how many of its tensors were matched by name.

    Args:
        weights: The file of the retrain stage; None: the run started from random weights.
        loaded: What of it was matched. A mismatch has stopped the run before, so there is none to list.
    """
    if weights is None or loaded is None:
        return None
    print(f"{weights}: {loaded}", file=sys.stderr)
    return {"sha256": sha256_file(weights), "matched": len(loaded.matched)}
