"""What a training run says and keeps: one line and one history row an epoch."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from downstream.detection.checkpoints import random_states, restore_random_states
from downstream.detection.evaluation import evaluate
from search.errors import InputError
from search.files import read_json, write_json
from search.training import Progress


@HOOKS.register_module(force=True)
class HistoryHook(Hook):
    """Collect epoch, losses, learning rate (of the last step) and seconds in ``history.json``.

    Every loss of the detector has its column (``loss_rpn_cls``, ``loss_bbox``, ...), ``loss`` is their sum; all
    are means over the epoch's steps. The file is written before the checkpoint of the same epoch, so a resumed
    run finds a row for every epoch that it does not repeat, and drops those that it does.

    Args:
        label: What the progress lines call the run.
        evaluate_every: Test the model after every so many epochs and add the measures to their rows; the last
            epoch's are left to the evaluation after the training. 0: no test in training. Neither changes the
            training: the random states are put back.
    """

    priority = "NORMAL"

    def __init__(self, label: str = "detect", evaluate_every: int = 0) -> None:
        self.label = label
        self.evaluate_every = evaluate_every
        self.rows: list[dict[str, float]] = []
        self._losses: list[dict[str, float]] = []
        self._started = 0.0
        self._progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Take over the rows of an interrupted run."""
        file = _file(runner)
        if runner.epoch and file.is_file():
            self.rows = [row for row in read_json(file) if row["epoch"] <= runner.epoch]
        self._progress = Progress(self.label, runner.max_epochs, done=runner.epoch)

    def after_train(self, runner: Runner) -> None:
        """End the display."""
        if self._progress is not None:
            self._progress.close()

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock of the epoch."""
        self._losses = []
        self._started = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Note the losses of the iteration; stop at once when their sum is no number."""
        found = {key: value for key, value in (outputs or {}).items() if key.startswith("loss")}
        losses = {key: float(value.detach()) for key, value in found.items()}
        if not math.isfinite(losses["loss"]):
            raise InputError(
                f"the loss became {losses['loss']} in epoch {runner.epoch + 1}, step {batch_idx + 1}",
                where=self.label,
                mend="a lower learning_rate, a longer warm-up or a clip_norm helps",
            )
        self._losses.append(losses)

    def after_train_epoch(self, runner: Runner) -> None:
        """Add the row and show the line: epoch, loss, time to go."""
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        row = {
            "epoch": runner.epoch + 1,
            "loss": self._mean("loss"),
            "lr": float(rate),
            "seconds": time.perf_counter() - self._started,
            **{key: self._mean(key) for key in self._losses[-1] if key != "loss"},
        }
        if self._evaluated(runner):
            states = random_states()
            row |= evaluate(runner, in_training=True)
            restore_random_states(states)
        self.rows.append(row)
        write_json(_file(runner), self.rows)
        if self._progress is not None:
            self._progress.update(runner.epoch + 1, f"loss {row['loss']:.4f}")

    def _mean(self, key: str) -> float:
        return sum(losses[key] for losses in self._losses) / len(self._losses)

    def _evaluated(self, runner: Runner) -> bool:
        epoch = runner.epoch + 1
        return bool(self.evaluate_every) and epoch % self.evaluate_every == 0 and epoch < runner.max_epochs


def _file(runner: Runner) -> Path:
    return Path(runner.work_dir) / "history.json"
