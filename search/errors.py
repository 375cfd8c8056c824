"""The one exception for bad input: programs print it as a single line and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave is wrong, and the user can mend it.

    Args:
        what: What is wrong, with the offending value.
        where: The file, key or argument it was found in.
        allowed: What would have been accepted.
        mend: How to put it right.

    Examples:
        >>> str(InputError("unknown op 'conv_9x9'", where="a.json", allowed="none, skip_connect"))
        "a.json: unknown op 'conv_9x9'; allowed: none, skip_connect"
    """

    def __init__(
        self, what: str, *, where: object = None, allowed: object = None, mend: str | None = None
    ) -> None:
        what = _of_worker(what)
        parts = [f"{where}: {what}" if where is not None else what]
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if mend is not None:
            parts.append(mend)
        super().__init__(" ".join("; ".join(parts).split()))


def _of_worker(what: str) -> str:
    """The message alone: torch raises a loading process's error anew with its traceback in the text."""
    return what.rstrip().rpartition("InputError: ")[2] if what.startswith("Caught InputError in ") else what


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to ``word``, for 'did you mean' hints; None if none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
