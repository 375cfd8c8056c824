"""What a variant of a search method changes, in words, from the settings that its records hold."""

from __future__ import annotations

from typing import Any

METHOD_NAMES = {
    "random": "Random search",
    "darts": "DARTS",
    "pc_darts": "PC-DARTS",
    "bnas": "BNAS (Chen)",
    "cp_nas": "CP-NAS",
    "dcp_nas": "DCP-NAS",
    "regularised_evolution": "Regularised evolution",
    "local_search": "Local search",
}
WHOSE = {
    "random": "best drawn network",
    "regularised_evolution": "best drawn network",
    "local_search": "best drawn network",
    "darts": "mixed supernet, last epoch",
    "pc_darts": "mixed supernet, last epoch",
    "bnas": "drawn networks, K = 2, mean",
    "cp_nas": "drawn Children, K = 2, mean",
    "dcp_nas": "mixed Child, last epoch",
}
"""Whose validation accuracy a method's is: what it saw last for its choice."""
WORDS: dict[tuple[str, Any], str] = {
    ("binary", True): "searched 1-bit",
    ("binary", False): "searched real-valued",
    ("beta_p", 0.0): "Child only",
    ("beta_p", 1.0): "Parent only",
}
"""Settings that read better than by their name."""


def flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key.

    Examples:
        >>> flat({"space": {"cells": 8}, "method": {"cp_nas": {"beta_p": 1.0}}})
        {'space.cells': 8, 'method.cp_nas.beta_p': 1.0}
    """
    found: dict[str, Any] = {}
    for key, value in params.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def changes(params: dict[str, Any], base: dict[str, Any]) -> str:
    """What the settings of a search change against others.

    Examples:
        >>> changes({"cp_nas": {"beta_p": 0.5, "parent": False}}, {"cp_nas": {"beta_p": 1.0, "parent": True}})
        'beta_p 0.5, parent off'
    """
    found, other = flat(params), flat(base)
    return ", ".join(
        _words(key.rpartition(".")[2], value)
        for key, value in found.items()
        if key not in other or value != other[key]
    )


def _words(name: str, value: Any) -> str:
    if (name, value) in WORDS:
        return WORDS[name, value]
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
