"""What a transfer run says of the weights it started from: one line on stderr, and its place in run.json."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.files import sha256_file

if TYPE_CHECKING:
    from search.weights import LoadReport

LOGGER = logging.getLogger("cp_nas.weights")


def describe(weights: str | Path | None, loaded: LoadReport | None) -> dict[str, Any] | None:
    """``weights`` of run.json: the file's sha256, the hash of its tensors, and how many were matched by name.

    The second one is the ``weights_hash`` of the retraining's own run.json, so that the two can be put together.

    Args:
        weights: The file of the retrain stage; None: the run started from random weights.
        loaded: What of it was matched. A mismatch has stopped the run before, so there is none to list.
    """
    if weights is None or loaded is None:
        return None
    from safetensors.torch import load_file

    from search.weights import hash_tensors

    LOGGER.info("%s: %s", weights, loaded)
    return {
        "sha256": sha256_file(weights),
        "weights_hash": hash_tensors(load_file(weights)),
        "matched": len(loaded.matched),
    }
