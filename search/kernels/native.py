"""The kernels' shared library as Python functions on addresses, and whether it runs in this process.

The functions take addresses of contiguous tensors; :mod:`search.kernels.operators` makes operators of them.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from search.kernels.build import FORCED, BuildError, Library

FOLDER = Path(__file__).parent / "c"
LIBRARY = Library(
    "training",
    tuple(sorted(FOLDER.glob("*.c"))),
    tuple(sorted(FOLDER.glob("*.h"))),
)
Kernels = Literal["auto", "off"]

_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_long,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
_SIGNATURES = {
    "make_planes": "plp",
    "depthwise_sums": "ppiiiiiiiippi",
    "pointwise_sums": "pppiiliilppi",
    "every_second": "pliiip",
    "integer_norm": "pdpliidppppdip",
    "normalise_bytes": "pplilp",
    "normalise_shorts": "pplilp",
    "normalise_floats": "pplilp",
    "estimate_gradient": "pplifp",
    "norm_sums": "ppiiilppi",
    "float_norm": "pdidppppdip",
    "norm_derivative": "ppiipp",
    "norm_middle": "pip",
    "float_moments": "piilpi",
    "norm_apply": "ppiplilp",
    "pointwise_gradients": "plpippipifpiilipppi",
    "pointwise_floats": "ppippifpiililpi",
    "depthwise_floats": "ppiiiiiiipi",
    "dot": "pplp",
    "pool_forward": "piiiiiippi",
    "pool_backward": "ppiiiiiipi",
    "pool_pick": "ppliiip",
    "depthwise_gradients": "ppippifpiiiiiiippi",
}
"""Types of the arguments of every exported function: pointer, int, long, float, double."""

LOGGER = logging.getLogger("cp_nas.kernels")
_state: dict[str, Any] = {"wanted": "auto"}


def choose(kernels: Kernels) -> str:
    """Use the kernels where they run (``auto``) or never (``off``); gives the name of what runs.

    Without a compiler, and where ``CP_NAS_KERNELS`` is ``off``, a warning says that plain PyTorch
    runs instead.
    """
    _state["wanted"] = kernels
    reason = None if kernels == "off" else _loaded()[1]
    if reason is not None:
        LOGGER.warning("note: plain PyTorch runs in place of the native kernels: %s", reason)
    return running()


def running() -> str:
    """What computes 1-bit layers in this process: a variant's name, or ``plain``."""
    if _state["wanted"] == "off" or _loaded()[0] is None:
        return "plain"
    return _variant_name()


@contextmanager
def switched_off() -> Iterator[None]:
    """Within, no kernel runs: for programs that read a network's graph of PyTorch's operators."""
    wanted = _state["wanted"]
    _state["wanted"] = "off"
    try:
        yield
    finally:
        _state["wanted"] = wanted


def available() -> bool:
    """Whether operators on float32 tensors of the CPU run by kernels now."""
    return _state["wanted"] != "off" and _loaded()[0] is not None


def _variant_name() -> str:
    return LIBRARY.choose().name


@functools.cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    if os.environ.get(FORCED) == "off":
        return None, f"{FORCED}=off"
    try:
        return prepared(LIBRARY.load()), None
    except BuildError as error:
        return None, str(error)


def prepared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the library's functions their types."""
    for name, types in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [_TYPES[letter] for letter in types], None
    return library


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        RuntimeError: If it does not run here; :func:`available` tells before.
    """
    found, reason = _loaded()
    if found is None:
        raise RuntimeError(reason)
    return found


def address(tensor: torch.Tensor | None) -> int | None:
    """Where a contiguous tensor's values lie; None for None.

    Raises:
        ValueError: If the tensor is not contiguous.
    """
    if tensor is None:
        return None
    if not tensor.is_contiguous():
        raise ValueError("kernels read contiguous tensors only")
    return tensor.data_ptr()
