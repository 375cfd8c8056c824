"""What a network of this suite costs, with what was counted: the object ``cost.json`` of a run."""

from __future__ import annotations

from typing import Any

from torch import nn

from search.cost import count
from search.genotype import Genotype


def describe(model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """What was counted, for the JSON object: read from the network's own ``architecture``.

    Args:
        model: A network of :func:`downstream.models.build`.
        size: Height and width of the input.
    """
    architecture: dict[str, Any] = model.architecture  # type: ignore[assignment]
    shared = {
        "input": size[0] if size[0] == size[1] else list(size),
        "architecture_hash": model.architecture_hash,
    }
    if architecture["kind"] == "handmade":
        return {
            "name": architecture["network"],
            "genotype_hash": None,
            "form": None,
            "stem": architecture["stem"],
            "channels": architecture["channels"],
            "cells": None,
            "classes": architecture["classes"],
            "precision": architecture["precision"],
            "auxiliary": False,
            **shared,
        }
    config, genotype = architecture["config"], Genotype.from_dict(architecture["genotype"])
    return {
        "name": genotype.name,
        "genotype_hash": genotype.hash,
        "form": config["style"]["form"],
        "stem": config["stem"],
        "channels": config["channels"],
        "cells": config["cells"],
        "classes": config["classes"],
        "precision": "1bit" if config["style"]["binary"] else "real",
        "auxiliary": config["auxiliary"],
        **shared,
    }


def cost_object(model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """``cost.json``: the object that ``--json`` prints, for any network and input size (height, width)."""
    return {**describe(model, size), **count(model, (3, *size)).to_dict()}
