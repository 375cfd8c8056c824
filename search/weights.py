"""Weights as safetensors that know their network: the header holds the architecture and its hash.

Nothing is ever unpickled. A file of another architecture is refused with both hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from search.errors import InputError
from search.file_kinds import kind_of
from search.files import atomic, sha256_json
from search.versions import KEY, Step, newest, upgrade

STEPS: tuple[Step, ...] = (lambda header: header,)
"""Versions of the header: version 1 did not state its version, which is all that version 2 added."""
HEADS = ("classifier.", "auxiliary.")
"""Modules that belong to the classes of one data set, not to the backbone."""


def save_weights(path: str | Path, model: nn.Module, extra: Mapping[str, str] | None = None) -> None:
    """Write parameters and buffers as safetensors, atomically.

    Args:
        path: The file.
        model: A network with ``architecture`` and ``architecture_hash``.
        extra: Further text for the header (training task, commit).
    """
    header = {
        KEY: str(newest(STEPS)),
        "architecture": json.dumps(model.architecture, sort_keys=True),
        "architecture_hash": str(model.architecture_hash),
        **(extra or {}),
    }
    state = {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary, metadata=header)


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a weight file: ``architecture`` decoded, everything else as text."""
    with _opened(path) as file:
        header: dict[str, Any] = dict(file.metadata() or {})
    if "architecture" not in header:
        raise InputError(
            "has no architecture in its header, so it is not one of this suite's weight files", where=path
        )
    try:
        header["architecture"] = json.loads(header["architecture"])
    except json.JSONDecodeError as error:
        raise InputError(f"the architecture in its header is not valid JSON ({error})", where=path) from None
    stated = header.get(KEY, "1")
    return upgrade({**header, KEY: int(stated) if stated.isdigit() else stated}, STEPS, path)


def has_architecture(path: str | Path) -> bool:
    """Whether a safetensors file's header says which of the suite's networks it belongs to."""
    with _opened(path) as file:
        return "architecture" in (file.metadata() or {})


def is_safetensors(path: str | Path) -> bool:
    """Whether a file is safetensors, by its content: a JSON object behind its length in eight bytes."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(9)[8:] == b"{"
    except FileNotFoundError:
        raise InputError("no such weight file", where=path) from None


def refuse_not_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Refuse weights with NaN or infinities: nothing that is computed with them means anything."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{name} has NaN or infinite values",
                where=where,
                mend="train again with a lower learning rate",
            )


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a weight file, on the CPU."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def _opened(path: str | Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except FileNotFoundError:
        raise InputError("no such weight file", where=path) from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"not a readable safetensors file but {kind_of(path)} ({error})", where=path
        ) from None


def load_weights(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load a file into a network of exactly its architecture.

    Returns:
        The file's header.

    Raises:
        InputError: If the file is of another architecture; the message has both hashes.
    """
    header = read_header(path)
    stated = str(header.get("architecture_hash"))
    if stated != model.architecture_hash:
        raise InputError(
            f"these weights are of architecture {stated[:12]}, the network is {str(model.architecture_hash)[:12]}",
            where=path,
            mend="build the network from the file's own header, or give the matching file",
        )
    tensors = read_tensors(path)
    refuse_not_finite(tensors, path)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(f"its tensors are not those of its architecture ({error})", where=path) from None
    return header


HEAD_SETTINGS = ("classes", "auxiliary", "name", "source")
"""Keys of an architecture that change nothing below the heads."""


def require_architecture(
    path: str | Path, wanted: Mapping[str, Any], free: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """The architecture in a weight file's header, if it is the wanted one in all that decides the weights.

    Names and shapes of the tensors alone do not tell, for example, two gradient estimators apart.

    Args:
        path: The file.
        wanted: ``architecture`` of the network that is to get the weights.
        free: Whether the two may differ in a key, such as ``config.channels``; by default in what belongs to the heads.

    Raises:
        InputError: If they differ elsewhere; it names where.
    """
    found = read_header(path)["architecture"]
    theirs, ours = _flat(found), _flat(wanted)
    may_differ = free or (lambda key: key.split(".")[-1] in HEAD_SETTINGS)
    differing = [
        f"{key}: {theirs.get(key)!r} in the file, {ours.get(key)!r} wanted"
        for key in sorted(theirs.keys() | ours.keys(), key=lambda key: (key != "kind", key))
        if theirs.get(key) != ours.get(key) and not may_differ(key)
    ]
    if differing:
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise InputError(
            f"these weights are of another network: {'; '.join(differing[:5])}{more}", where=path
        )
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".strip(".")).items()}


@dataclass(frozen=True)
class LoadReport:
    """What of a weight file went where.

    Attributes:
        matched: Names loaded.
        missing: Names of the network's backbone that the file lacks or has in another shape.
        unexpected: Names of the file's backbone that the network lacks.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.matched)} tensors matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


def load_backbone(path: str | Path, model: nn.Module) -> LoadReport:
    """Load everything but the heads by name; classifier and auxiliary head may differ in their classes.

    Raises:
        InputError: If any tensor of the backbone is missing, left over or of another shape; lists them.
    """
    tensors = {key: value for key, value in read_tensors(path).items() if not key.startswith(HEADS)}
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(HEADS)}
    matched = tuple(sorted(key for key in tensors if key in own and tensors[key].shape == own[key].shape))
    report = LoadReport(
        matched=matched,
        missing=tuple(sorted(set(own) - set(matched))),
        unexpected=tuple(sorted(set(tensors) - set(matched))),
    )
    if report.missing or report.unexpected:
        names = "; ".join(
            f"{title}: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}"
            for title, found in (("missing", report.missing), ("unexpected", report.unexpected))
            if found
        )
        raise InputError(f"weights of another backbone ({report}; {names})", where=path)
    with torch.no_grad():
        for key in matched:
            own[key].copy_(tensors[key])
    return report


def hash_state(model: nn.Module) -> str:
    """Hash (sha256, hex) of all parameters and buffers: equal if and only if they are equal bit for bit."""
    return hash_tensors(model.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash (sha256, hex) of named tensors; of a weight file's the same as of the network it was made from."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(sha256_json([key, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
