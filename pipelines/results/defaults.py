"""Settings that records of older code lack, with the value that code behaved as.

Runs are averaged where their settings are the same. A key that came later would part a run of today from the same
run of yesterday, so the hash of the settings is taken after these have been filled in, and after those that are no
longer there because they changed nothing have been taken out.
"""

from __future__ import annotations

from typing import Any

BLOCK: dict[str, Any] = {
    "parent_block": "twin",
    "depthwise": None,
    "pool_norm": "own",
    "node_norm": False,
    "estimator_window": 1.0,
    "scale": None,
    "weight_gradient": "unscaled",
    "pad_value": 0,
    "learned_gain": 0.02,
}
"""Blocks before they had settings: every real-valued network of the form ``paper`` was a twin."""
ADDED: dict[str, Any] = {
    "space.name": "paper",  # there was no other
    "space.block": BLOCK,
    "space.supernet": {"affine": "none", "running_statistics": False},
    "method.cp_nas.tie_weight": 0.0,  # the loss of fig. 4.5 was not there
    "retrain.*.network.block": BLOCK,
    "retrain.*.variants": {},
    "detection.block": None,  # that of the weights
    "reid.block": None,  # likewise
    "retrain.*.loss.teacher_cache": "none",  # a teacher was asked about every augmented image
    "retrain.*.crop.decoder": "pil",  # Pillow read every picture
    "retrain.*.recalibrate_images": 0,  # batch norm's statistics stayed as training left them
    "detection.evaluate_every": 0,  # tested at the end only
    "reid.evaluate_every": 0,  # likewise
    "reid.train_images": 0,  # all were used
    "reid.test_images": 0,  # likewise
}
"""Dotted keys, ``*`` for any name; each is filled in where the mapping that should hold it is there."""
REMOVED = ("method.*.indicator_scale",)
"""Likewise, keys of older records that changed no number: the softmax keeps the order, whatever multiplies z."""


def with_defaults(params: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record with the keys of :data:`ADDED` that it lacks, and without those of :data:`REMOVED`.

    Examples:
        >>> with_defaults({"reid": {"epochs": 60}})
        {'reid': {'epochs': 60, 'block': None, 'evaluate_every': 0, 'train_images': 0, 'test_images': 0}}
        >>> with_defaults({"method": {"cp_nas": {"rounds": 1, "indicator_scale": 1.0}}})
        {'method': {'cp_nas': {'rounds': 1, 'tie_weight': 0.0}}}
    """
    for path, value in ADDED.items():
        params = _filled(params, path.split("."), value)
    for path in REMOVED:
        params = _without(params, path.split("."))
    return params


def _filled(settings: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    name, *below = path
    if not below:
        return {**settings, name: settings.get(name, value)}
    names = settings if name == "*" else [name]
    inner = {key: settings[key] for key in names if isinstance(settings.get(key), dict)}
    return settings | {key: _filled(mapping, below, value) for key, mapping in inner.items()}


def _without(settings: dict[str, Any], path: list[str]) -> dict[str, Any]:
    name, *below = path
    if not below:
        return {key: value for key, value in settings.items() if key != name}
    names = settings if name == "*" else [name]
    inner = {key: settings[key] for key in names if isinstance(settings.get(key), dict)}
    return settings | {key: _without(mapping, below) for key, mapping in inner.items()}


def as_run(params: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The settings as they took effect: older code recorded ``reid.pretrained`` for networks that have no weights.

    Args:
        params: The recorded settings.
        run: The record's run.json; its ``weights`` say whether any were loaded.
    """
    if "reid" not in params or "weights" not in run:
        return params
    return params | {"reid": params["reid"] | {"pretrained": run["weights"] is not None}}
