"""Any MMDetection config with our backbone, without the pipeline: train and evaluate, or only evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from downstream.detection.evaluation import evaluate
from downstream.detection.train import make_runner, save_detector, train
from search.errors import InputError
from search.files import read_json, write_csv, write_json


def train_config(
    file: Path, weights: Path | None, folder: Path, changes: Sequence[str], seed: int
) -> dict[str, float]:
    """Train a config in ``folder`` (again to go on after an interruption) and evaluate it.

    Args:
        file: An MMDetection config.
        weights: safetensors of the retraining stage for the backbone, or None.
        folder: Working folder; gets metrics.json, history.csv and model.safetensors.
        changes: ``key=value`` changes of the config, as in mmdet's ``--cfg-options``.
        seed: Seed of everything random, where the config sets none.
    """
    config = read_config(file, folder, changes)
    if weights is not None:
        kind = config.model.backbone.type
        if getattr(kind, "__name__", kind) != "GenotypeBackbone":
            raise InputError(f"the backbone is a {kind}", where=file, allowed="GenotypeBackbone")
        config.model.backbone.weights = str(weights)
    config.setdefault("randomness", {"seed": seed})
    runner = train(config)
    metrics = evaluate(runner)
    write_json(folder / "metrics.json", metrics)
    write_csv(folder / "history.csv", read_json(folder / "history.json"))
    save_detector(folder / "model.safetensors", runner.model, {"config": file.name})
    return metrics


def evaluate_config(file: Path, weights: Path, folder: Path, changes: Sequence[str]) -> dict[str, float]:
    """Evaluate a whole detector's weights (``model.safetensors`` of a training) with its config."""
    runner = make_runner(read_config(file, folder, changes), "evaluate")
    found = runner.model.load_state_dict(load_file(weights), strict=False)
    if found.missing_keys or found.unexpected_keys:
        raise InputError(
            f"not this detector's weights: missing {found.missing_keys[:5]}, "
            f"unexpected {found.unexpected_keys[:5]}",
            where=weights,
            mend="weights of the retrain stage are for training: leave --evaluate out",
        )
    metrics = evaluate(runner)
    write_json(folder / "metrics.json", metrics)
    return metrics


def read_config(file: Path, folder: Path, changes: Sequence[str]) -> Any:
    """Read a config, apply the changes, and put its working folder at ``folder``."""
    from mmengine.config import Config, DictAction

    import downstream.detection.modules  # noqa: F401 - registers our types

    config = Config.fromfile(file, format_python_code=False)
    parsed = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not KEY=VALUE", where="--set")
        parsed[key] = DictAction._parse_iterable(value)  # what mmdet's --cfg-options does
    config.merge_from_dict(parsed)
    config.work_dir = str(folder)
    return config
