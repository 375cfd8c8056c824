"""What all trainings share: set-up on Lightning Fabric, one epoch, evaluation, and checkpoints to go on from."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from search.errors import InputError
from search.files import atomic, sha256_file, sha256_json
from search.settings import Settings

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class ComputeSettings(Settings):
    """Where and how to compute; nothing here is meant to change a result's meaning.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: Fabric's precision: ``32-true`` or ``bf16-mixed``.
        threads: Threads of one process on the CPU; part of bit-for-bit reproducibility.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = 2


def set_up(compute: ComputeSettings, seed: int) -> Fabric:
    """Fix threads, algorithms and seeds, and make the Fabric (torchrun's and Slurm's environments are honoured)."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", where="compute.device", allowed="auto, cpu")
    torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    world = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=compute.device,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=max(1, world // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))),
        strategy="ddp" if world > 1 else "auto",
        precision=compute.precision,
    )
    fabric.launch()
    seed_all(seed)
    return fabric


def place(module: ModuleType, device: torch.device) -> ModuleType:
    """Move a network to the device, channels last: the faster layout for depthwise networks (tests/benchmarks)."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and top-5 accuracy in [0, 1], mean cross entropy, and the number of images."""

    accuracy: float
    top5: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(
    fabric: Fabric,
    model: nn.Module,
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Evaluation:
    """Evaluate ``predict`` with ``model`` in evaluation mode; sums run over all processes."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    for x, y in batches:
        with fabric.autocast():
            logits = predict(x)
        logits = logits.float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = top == y[:, None]
        loss = nn.functional.cross_entropy(logits, y, reduction="sum")
        sums += torch.tensor([hits[:, 0].sum(), hits.sum(), loss, len(y)], dtype=torch.float64)
    model.train(was_training)
    sums = reduce_sum(fabric, sums)
    total = max(float(sums[3]), 1.0)
    return Evaluation(float(sums[0]) / total, float(sums[1]) / total, float(sums[2]) / total, int(sums[3]))


def reduce_sum(fabric: Fabric, value: Tensor) -> Tensor:
    """Sum over all processes; the value itself where there is one."""
    return value if fabric.world_size == 1 else cast(Tensor, fabric.all_reduce(value, reduce_op="sum"))


def average_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all processes (a sampled supernet uses other parameters in every step)."""
    if fabric.world_size > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(cast(Tensor, fabric.all_reduce(parameter.grad, reduce_op="mean")))


class Resume:
    """A folder with the state of an unfinished run, named by a fingerprint of all that decides the run.

    Args:
        root: Parent folder; outside every stage's outputs.
        identity: JSON-able description (parameters, seed, data hash, kind of run). Code and the torch version are
            added, so that a state of other code is never found.
    """

    def __init__(self, root: str | Path, identity: dict[str, Any]) -> None:
        self.fingerprint = sha256_json({**identity, "torch": torch.__version__, "code": code_hash()})
        self.folder = Path(root) / self.fingerprint[:24]
        self.path = self.folder / "state.pt"

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The saved state, or None where there is nothing to go on from. Never unpickles code."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location=device, weights_only=True)
        if state.get("fingerprint") != self.fingerprint:
            raise InputError(
                "is the state of another run", where=self.path, mend="delete the folder to start anew"
            )
        return state["state"]

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, atomically."""
        with atomic(self.path) as temporary:
            torch.save({"fingerprint": self.fingerprint, "state": state}, temporary)

    def remove(self) -> None:
        """Forget the state: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def code_hash() -> str:
    """Hash of the suite's method code (packages search and downstream)."""
    root = Path(__file__).parent.parent
    files = sorted(path for package in ("search", "downstream") for path in (root / package).rglob("*.py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def rng_state() -> dict[str, Any]:
    """State of torch's global generators (drop path draws from them)."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`rng_state` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])


def peak_memory_mib(fabric: Fabric) -> float:
    """Peak memory in MiB: allocated on the GPU, or the resident size of this process."""
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Progress:
    """One line a unit of work: what, how far, the number that matters, and when it ends.

    On a terminal the line is redrawn by rich's progress bar; in a log every call prints a line.
    """

    def __init__(self, title: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.title, self.total, self.first, self.quiet = title, total, done, quiet
        self.started = time.monotonic()
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(title, total=total, completed=done, note="")
            self.bar.start()

    def update(self, done: int, note: str) -> None:
        """``done`` units are finished; ``note`` has the number that matters."""
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.update(self.task, completed=done, note=note)
            return
        elapsed = time.monotonic() - self.started
        left = elapsed / max(done - self.first, 1) * (self.total - done)
        print(f"{self.title}  {done}/{self.total}  {note}  {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the display."""
        if self.bar is not None:
            self.bar.stop()
