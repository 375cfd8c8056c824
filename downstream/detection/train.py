"""Training and evaluation of one detector through MMEngine's Runner."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from downstream.detection.compose import BackboneSpec, compose
from downstream.detection.data import DetectionData
from downstream.detection.evaluation import evaluate, quiet
from downstream.detection.settings import DetectionSettings
from search.files import atomic, read_json, write_json

DETECTIONS = "detections.json"
"""Detections of the test set as a COCO results file; see :class:`downstream.detection.metrics.ExactCocoMetric`."""
CONFIG = "config.py"
"""The config with all its bases and changes put in, beside the weights."""


@dataclass
class Outcome:
    """What a training gave.

    Attributes:
        metrics: Flat numbers for metrics.json.
        history: One row an epoch; with ``evaluate_every``, the last one has the final measures.
        counts: Images in training and test, and boxes that the preparation left out of either.
        model: The trained detector.
        test_set: The test data set, for pictures.
        config: The config that it was made with, all settings put in.
    """

    metrics: dict[str, float]
    history: list[dict[str, float]]
    counts: dict[str, int]
    model: torch.nn.Module
    test_set: Any
    config: Any


def train_and_evaluate(
    settings: DetectionSettings,
    spec: BackboneSpec,
    data: DetectionData,
    *,
    seed: int,
    folder: Path,
    threads: int,
) -> Outcome:
    """Train a detector, or go on with an interrupted training in ``folder``, and evaluate it.

    The same call in the same folder after a kill goes on from the last finished epoch with the same random
    states: on a CPU the result is the same bit for bit. The untrained detector is evaluated too, as the
        floor.

    Args:
        settings: Values of the profile.
        spec: The backbone.
        data: The data set.
        seed: Seed of everything random.
        folder: Working folder; holds the checkpoint and is the caller's to remove.
        threads: Threads of torch on the CPU.
    """
    torch.set_num_threads(threads)
    config = compose(settings, spec, data, seed=seed, folder=folder)
    started = time.perf_counter()
    floor = _untrained(config, folder)
    runner = train(config)
    history = read_json(folder / "history.json")
    evaluation = time.perf_counter()
    trained = evaluate(runner, export=folder / DETECTIONS)
    finished = time.perf_counter()
    if settings.evaluate_every:
        history[-1] |= trained
    test_set, train_set = runner.test_dataloader.dataset, runner.train_dataloader.dataset
    train_seconds = sum(row["seconds"] for row in history)
    metrics = {
        **trained,
        **{f"untrained_{key}": value for key, value in floor.items()},
        "epochs": settings.epochs,
        "images_seen": len(train_set) * settings.epochs,
        "seconds": finished - started,
        "train_seconds": train_seconds,
        "evaluation_seconds": finished - evaluation,
        "images_per_second": len(train_set) * settings.epochs / train_seconds,
        "test_images_per_second": len(test_set) / (finished - evaluation),
    }
    counts = {
        "train_images": len(train_set) // settings.repeat,
        "test_images": len(test_set),
        "train_boxes_skipped": data.left_out.get("train", 0),
        "test_boxes_skipped": data.left_out.get("test", 0),
    }
    return Outcome(metrics, history, counts, runner.model, test_set, config)


def train(config: Any) -> Any:
    """Train by a config, going on from its folder's last checkpoint if there is one; returns the Runner."""
    runner = make_runner(config, "train", resume=Path(config.work_dir, "last_checkpoint").is_file())
    with quiet():
        runner.train()
    return runner


def make_runner(config: Any, name: str, *, resume: bool = False) -> Any:
    """A Runner; ``name`` tells apart what is global by name in MMEngine."""
    from mmengine.runner import Runner

    own = copy.deepcopy(config)
    own.resume = resume
    own.experiment_name = f"{Path(own.work_dir).name}-{name}-{time.monotonic_ns()}"
    own.visualizer = {**own.visualizer, "name": own.experiment_name}
    return Runner.from_cfg(own)


def save_detector(path: Path, model: torch.nn.Module, header: Mapping[str, str]) -> None:
    """Write the detector's parameters and buffers as safetensors, atomically."""
    state = {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary, metadata=dict(header))


def _untrained(config: Any, folder: Path) -> dict[str, float]:
    """Numbers of the detector before its first step; evaluated once, kept for a resumed run."""
    file = folder / "untrained.json"
    if not file.is_file():
        runner = make_runner(config, "untrained")
        runner.model.init_weights()
        write_json(file, evaluate(runner))
    return read_json(file)
