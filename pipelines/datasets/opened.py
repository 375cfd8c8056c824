"""Opens the picture files of a data set once, several at a time, and says which stand in training and test alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from search.pictures import Facts, inspect

BLOCK = 4096
"""Files that are handed to the threads at once."""
REPORT = 50_000
"""Files from one progress line to the next."""


def open_all(paths: Sequence[Path], *, decode: bool = True) -> Iterator[Facts]:
    """What opening each file showed, in their order; decoding lets go of the interpreter, so threads share it."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(partial(inspect, decode=decode), paths[start : start + BLOCK])
            done = min(start + BLOCK, len(paths))
            if done // REPORT > start // REPORT:
                print(f"checked {done} of {len(paths)} pictures", file=sys.stderr, flush=True)


def shared_note(digests: Mapping[str, Sequence[str]], train: str, test: str) -> list[str]:
    """One line if pictures of ``test`` are in ``train`` too; nothing otherwise.

    Args:
        digests: Of each split, the digests of its pictures.
        train, test: The splits to compare.
    """
    known = set(digests[train])
    count = sum(digest in known for digest in digests[test])
    if not count:
        return []
    remark = ": no test of generalisation" if train == "train" else ""
    return [f"{count} of {len(digests[test])} {test} pictures are {train} pictures too{remark}"]


def say(notes: Sequence[str]) -> None:
    """Print what is worth saying about a data set, for whoever prepares it."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
