"""Weight files of others: told apart by their content, read as tensors by name without running code from them.

Training scripts wrap a state (``{"state_dict": ..., "epoch": ...}``) and its names (``module.`` of data parallel,
``_orig_mod.`` of torch.compile): both are taken off. What is no state is named: a Git LFS pointer, a web page, a
pickled module, a TorchScript program, half a file.
"""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.errors import InputError
from search.weights import is_safetensors, read_tensors, refuse_not_finite

LOGGER = logging.getLogger("cp_nas.weights")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which training scripts put a state, the first one there is read."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every name of a state."""
SAVE = "save the state alone: torch.save(model.state_dict(), ...)"
FOREIGN = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer, not the weights", "run: git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the weights", "run: git annex get"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "convert it to PyTorch's names"),
    (b"\x93NUMPY", "a NumPy array", "convert it to PyTorch's names"),
    (b"\x1f\x8b", "compressed by gzip", "decompress it"),
    (b"GGUF", "a GGUF file", "convert it to PyTorch's names"),
)
"""Files that are met in place of weights: first bytes, what that is, what to do."""


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a PyTorch file that is read without unpickling code.

    Raises:
        InputError: If the file is no state, or a tensor has NaN or an infinity; says what it is.
    """
    refuse_foreign(path)
    state = read_tensors(path) if is_safetensors(path) else _unwrapped(_pickled(path), path)
    state = without_prefixes(state)
    refuse_not_finite(state, path)
    return state


def refuse_foreign(path: str | Path) -> None:
    """Refuse what is plainly no file of weights, by its first bytes."""
    file = Path(path)
    if file.is_dir():
        raise InputError("is a folder", where=path, allowed="a file of weights")
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
    except FileNotFoundError:
        raise InputError("no such weight file", where=path) from None
    if not head:
        raise InputError("is empty", where=path, mend="fetch it again")
    for start, what, mend in FOREIGN:
        if head.startswith(start):
            raise InputError(f"is {what}", where=path, mend=mend)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError("is a web page, not the weights", where=path, mend="fetch the file itself")
    if zipfile.is_zipfile(file):
        _refuse_zip(file)


def _refuse_zip(file: Path) -> None:
    try:
        names = zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, OSError):
        return  # PyTorch's reader says what is wrong
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise InputError(
            "is a TorchScript program", where=file, mend=SAVE.replace("model.", "torch.jit.load(...).")
        )
    if any(name.endswith(".npy") for name in names):
        raise InputError("is a NumPy archive", where=file, mend="convert it to PyTorch's names")
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError("is a zip archive without PyTorch's data", where=file, mend="unpack it")


def _pickled(path: str | Path) -> Any:
    """The content of a PyTorch file: tensors, numbers, text, containers, and argparse's options beside them."""
    try:
        # as a stream: by the name alone torch.load would take any *.safetensors for one
        with torch.serialization.safe_globals([argparse.Namespace]), Path(path).open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global:? GLOBAL)\s+([\w.]+)", str(error))
        if found is None:
            raise InputError("is no PyTorch file", where=path, mend=SAVE) from None
        raise InputError(
            f"holds a pickled {found[1]}, and unpickling it could run code", where=path, mend=SAVE
        ) from None
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        what = re.split(r"\. |\n", str(error))[0][:120]
        raise InputError(f"is damaged or cut short ({what})", where=path, mend="fetch it again") from None


def _unwrapped(value: Any, path: str | Path) -> dict[str, Tensor]:
    """The state in what a training script saved."""
    if not isinstance(value, Mapping):
        raise InputError(f"holds a {type(value).__name__}, not tensors by name", where=path, mend=SAVE)
    inside = [key for key in WRAPPERS if isinstance(value.get(key), Mapping)]
    if inside:
        others = [str(key) for key, item in value.items() if key != inside[0] and _is_state(item)]
        if others:
            LOGGER.warning("%s: read is %r; there is also %s", path, inside[0], ", ".join(others))
        return _unwrapped(value[inside[0]], path)
    wrong = [str(key) for key, item in value.items() if not isinstance(item, Tensor)]
    if wrong or not value:
        found = f"also {', '.join(wrong[:5])}" if wrong else "nothing"
        raise InputError(f"holds something else than tensors by name ({found})", where=path, mend=SAVE)
    return {str(key): tensor for key, tensor in value.items()}


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names without what a wrapper put before all of them.

    Examples:
        >>> sorted(without_prefixes({"module._orig_mod.fc.bias": torch.zeros(1), "module._orig_mod.a": torch.ones(1)}))
        ['a', 'fc.bias']
    """
    for prefix in PREFIXES * 2:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
