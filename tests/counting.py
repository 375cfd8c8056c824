"""Counters of what operations do, for tests and benchmarks: nothing here measures time."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations made and that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, count: int) -> None:
        self.known.discard(key)
        self.live -= count


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations must read and write if each passes once over its arguments and results.

    A lower bound for code that runs one operation after another: batch norms pass twice over their input, and
    convolutions may reorder theirs. Views move nothing. Operations made of others count as these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__ and "detach" not in func.__name__:
            self.bytes += _distinct_bytes((args, kwargs)) + _distinct_bytes(result)
        return result


def _distinct_bytes(values: Any) -> int:
    """Bytes of the distinct tensors among ``values``; one that is expanded counts with what it stores."""
    sizes = {}
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            stored = leaf.untyped_storage().nbytes()
            sizes[leaf.data_ptr(), leaf.shape] = min(leaf.numel() * leaf.element_size(), stored)
    return sum(sizes.values())
