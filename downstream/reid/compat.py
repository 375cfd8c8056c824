"""The one place that imports Torchreid, in either packaging: ``torchreid.reid`` (0.2.5) or ``torchreid``."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Iterator
from types import ModuleType

from search.errors import InputError

PARTS = ("data", "engine", "losses", "metrics", "models", "optim", "utils")


@functools.cache
def torchreid() -> ModuleType:
    """The module that holds Torchreid's parts (``data``, ``engine``, ``metrics``, ``models``, ...).

    In the 0.2.5 wheel that is ``torchreid.reid``, in the classic packaging ``torchreid`` itself. The import
    takes seconds, so it happens at the first call and nowhere else.

    Raises:
        InputError: Torchreid is not installed, or lacks a part of what it is made of.
    """
    with warnings.catch_warnings():
        # The compiled evaluator is never built by a wheel; this suite uses the Python one on purpose.
        warnings.filterwarnings("ignore", message="Cython evaluation")
        root = _import("torchreid")
        if root is None:
            raise InputError("torchreid is not installed", mend="install the extra 'reid'")
        package = _import("torchreid.reid") or root
        for part in PARTS:
            if _import(f"{package.__name__}.{part}") is None:
                raise InputError(f"this torchreid has no module {part!r}", where=package.__name__)
    return package


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise InputError(
            f"torchreid needs the package {error.name!r}", where=name, mend="install the extra 'reid'"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Torchreid's banners and progress off standard output, and silence its advice on folders."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The current data structure is deprecated")
        yield
