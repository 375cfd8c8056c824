"""Checkpoints of plain tensors and numbers, from which an interrupted training goes on bit for bit.

mmengine's own checkpoints hold pickled objects, which torch.load refuses by default, and rightly so. Ours are
made of tensors, numbers, strings and containers alone: ``weights_only`` loading is enough for mmdet's test
and ``--resume`` too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner

from search.files import atomic, write_text

PLAIN = (str, int, float, bool, type(None), torch.Tensor)


@HOOKS.register_module(force=True)
class PlainCheckpointHook(Hook):
    """Write ``epoch_N.pth`` after each epoch, whole or not at all, and keep only the newest.

    The checkpoint also carries the random states, so that flips and samplers continue as if never
    interrupted.

    Args:
        interval: Epochs between checkpoints; the last epoch is always written.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval
        self._random: dict[str, Any] | None = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Save, then point ``last_checkpoint`` at the new file, then remove the older ones."""
        epoch = runner.epoch + 1
        if epoch % self.interval and epoch != runner.max_epochs:
            return
        folder = Path(runner.work_dir)
        path = folder / f"epoch_{epoch}.pth"
        with atomic(path) as temporary:
            runner.save_checkpoint(str(temporary.parent), temporary.name)
        write_text(folder / "last_checkpoint", str(path))
        for old in folder.glob("epoch_*.pth"):
            if old != path:
                old.unlink()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Reduce the checkpoint to plain content and add the random states."""
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
        for key in list(checkpoint):
            checkpoint[key] = plain(checkpoint[key])
        checkpoint["random"] = random_states()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until the first epoch begins."""
        self._random = checkpoint.get("random")

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the random states of the checkpoint, once, before the epoch draws anything."""
        if self._random is not None and runner.epoch:
            restore_random_states(self._random)
        self._random = None


def plain(value: Any) -> Any:
    """``value`` with numpy numbers as Python's, and whatever is not plain left out of its container."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if _is_plain(item)}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value if _is_plain(item))
    if isinstance(value, np.generic):
        return value.item()
    return value


def _is_plain(value: Any) -> bool:
    return isinstance(value, (*PLAIN, dict, list, tuple, np.generic))


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators as plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # type: ignore[misc]
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set what :func:`random_states` gave."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


@FUNCTIONS.register_module(force=True)
def seed_worker(worker_id: int, **_ignored: Any) -> None:
    """Seed a data worker from torch's seed of this epoch and worker.

    mmengine's own function gives a worker the same seed every epoch; torch's base seed is drawn from the main
    generator, so it differs from epoch to epoch and is the same again after a resume.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
