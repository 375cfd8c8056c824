"""Any MMDetection config with our backbone, without the pipeline: train and evaluate, or only evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from downstream.detection.evaluation import evaluate, quiet
from downstream.detection.train import CONFIG, DETECTIONS, make_runner, save_detector, train
from search.errors import InputError
from search.file_kinds import kind_of
from search.files import read_json, write_csv, write_json
from search.weights import read_header, read_tensors

OLD_KEYS = {
    "data": "train_dataloader, val_dataloader, test_dataloader",
    "runner": "train_cfg",
    "total_epochs": "train_cfg.max_epochs",
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper.clip_grad",
    "lr_config": "param_scheduler",
    "evaluation": "val_evaluator, test_evaluator",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger",
    "workflow": "train_cfg",
}
"""Keys of MMDetection 2.x and what they are called since 3.0."""
NEEDED = {
    "train": ("model", "train_dataloader", "train_cfg", "optim_wrapper"),
    "evaluate": ("model", "test_dataloader", "test_evaluator", "test_cfg"),
}
OWN_TYPES = {"CocoDataset": "CountingCocoDataset", "CocoMetric": "ExactCocoMetric"}
PREFIXES = ("module.", "_orig_mod.")
"""What data parallelism and torch.compile put before every name."""


def train_config(
    file: Path, weights: Path | None, folder: Path, changes: Sequence[str], seed: int
) -> dict[str, float]:
    """Train a config in ``folder`` (again to go on after an interruption) and evaluate it.

    Args:
        file: An MMDetection config.
        weights: safetensors of the retraining stage for the backbone, or None.
        folder: Working folder; gets metrics.json, detections.json, history.csv, config.py and model.safetensors.
        changes: ``key=value`` changes of the config, as in mmdet's ``--cfg-options``.
        seed: Seed of everything random, where the config sets none.
    """
    if weights is not None:
        read_header(weights)
    config = read_config(file, folder, changes, (*NEEDED["train"], *NEEDED["evaluate"]))
    if weights is not None:
        kind = config.model.backbone.type
        if getattr(kind, "__name__", kind) != "GenotypeBackbone":
            raise InputError(f"the backbone is a {kind}", where=file, allowed="GenotypeBackbone")
        config.model.backbone.weights = str(weights)
    config.setdefault("randomness", {"seed": seed})
    hooks = config.get("custom_hooks") or []
    if not any(str(hook.get("type")).endswith("HistoryHook") for hook in hooks):
        config.custom_hooks = [*hooks, {"type": "HistoryHook"}]
    with _one_line(file), quiet():  # data and model are looked at before the first step
        probe = make_runner(config, "probe")
        _ = probe.train_loop, probe.test_loop
    runner = train(config)
    metrics = evaluate(runner, export=folder / DETECTIONS)
    write_json(folder / "metrics.json", metrics)
    write_csv(folder / "history.csv", read_json(folder / "history.json"))
    save_detector(folder / "model.safetensors", runner.model, {"config": file.name})
    config.dump(folder / CONFIG)
    return metrics


def evaluate_config(file: Path, weights: Path, folder: Path, changes: Sequence[str]) -> dict[str, float]:
    """Evaluate a whole detector's weights with its config; writes metrics.json and detections.json.

    Args:
        file: An MMDetection config, such as the config.py beside the weights.
        weights: ``model.safetensors`` of a training, or a checkpoint of MMDetection (.pth).
        folder: Where the results go.
        changes: ``key=value`` changes of the config.
    """
    state = detector_tensors(weights)
    config = read_config(file, folder, changes, NEEDED["evaluate"])
    with _one_line(file), quiet():
        runner = make_runner(config, "evaluate")
        _ = runner.test_loop
    _load(runner.model, state, weights)
    metrics = evaluate(runner, export=folder / DETECTIONS)
    write_json(folder / "metrics.json", metrics)
    return metrics


def detector_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a detector's weight file, by what the file is, whatever its name.

    Raises:
        InputError: It is neither a safetensors file nor a checkpoint of plain tensors; says what it is.
    """
    kind = kind_of(path)
    if "safetensors" in kind:
        return _without_prefix(read_tensors(path))
    if "torch.save" not in kind:
        raise InputError(
            f"not a weight file: it is {kind}",
            where=path,
            allowed="safetensors, or a checkpoint by torch.save (.pth)",
        )
    try:
        with path.open("rb") as stream:  # of a path, torch takes the name's ending for the kind
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a pickle that it will not run
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"a checkpoint that cannot be read as plain tensors ({reason:.120})",
            where=path,
            mend="where it was written: torch.save({'state_dict': model.state_dict()}, 'weights.pth')",
        ) from None
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            "a checkpoint without a state_dict of tensors",
            where=path,
            allowed="{'state_dict': {name: tensor}}",
        )
    return _without_prefix(content)


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _load(model: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    kinds = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    wrong = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in kinds.items() if names
    )
    if wrong:
        raise InputError(
            f"not this detector's weights: {wrong}",
            where=path,
            mend="give the config.py beside the weights; weights of the retrain stage are for training: leave "
            "--evaluate out",
        )
    model.load_state_dict(state)


def read_config(file: Path, folder: Path, changes: Sequence[str], needed: Sequence[str] = ()) -> Any:
    """Read a config, apply the changes, and put its working folder at ``folder``.

    Raises:
        InputError: It cannot be read, is one of MMDetection 2.x, or lacks one of the keys ``needed``.
    """
    from mmengine.config import Config, DictAction

    import downstream.detection.modules  # noqa: F401 - registers our types

    with _one_line(file):
        config = Config.fromfile(file, format_python_code=False)
    old = [f"{key} (now {new})" for key, new in OLD_KEYS.items() if key in config and key not in needed]
    if old and "train_dataloader" not in config and "test_dataloader" not in config:
        raise InputError(
            f"a config of MMDetection 2.x: {', '.join(old)}", where=file, allowed="a config of 3.x"
        )
    parsed = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not KEY=VALUE", where="--set")
        parsed[key] = DictAction._parse_iterable(value)  # what mmdet's --cfg-options does
    with _one_line("--set"):
        config.merge_from_dict(parsed)
    if missing := [key for key in dict.fromkeys(needed) if config.get(key) is None]:
        raise InputError(f"no key {', '.join(missing)}", where=file, mend="add it, or a base that has it")
    config.work_dir = str(folder)
    _own_types(config._cfg_dict)
    return config


def _own_types(entry: Any) -> None:
    """Put our data set and measure in the place of mmdet's, whose labels follow the file's order and which rounds."""
    if isinstance(entry, dict):
        name = str(getattr(entry.get("type"), "__name__", entry.get("type"))).rpartition(".")[2]
        if name in OWN_TYPES:
            entry["type"] = OWN_TYPES[name]
    for value in entry.values() if isinstance(entry, dict) else entry:
        if isinstance(value, dict | list | tuple):
            _own_types(value)


@contextmanager
def _one_line(where: object) -> Iterator[None]:
    """What another's config raises, which runs as Python and builds anything, as one line that names its file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = error.filename or error
        raise InputError(
            f"no such file: {missing}", where=where, mend="mend the path, or put it there"
        ) from None
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"cannot be used ({type(error).__name__}: {' '.join(lines)[-300:]})", where=where
        ) from None
