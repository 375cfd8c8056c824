"""What all trainings share: set-up on Lightning Fabric, one epoch, evaluation, and checkpoints to go on from."""

from __future__ import annotations

import logging
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
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from search import exact, optimisers
from search.errors import InputError
from search.files import atomic, sha256_json
from search.kernels import native
from search.kernels.native import Kernels
from search.memory import keep_freed_memory
from search.processes import mean_over_processes, sum_over_processes, with_global_norms, world
from search.settings import Settings

LOGGER = logging.getLogger("cp_nas.progress")
ModuleType = TypeVar("ModuleType", bound=nn.Module)


class ComputeSettings(Settings):
    """Where and how to compute; nothing here is meant to change a result's meaning.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: Fabric's precision: ``32-true``, ``bf16-mixed``, or ``16-mixed``: float16 with a loss scale
            that grows and shrinks by itself. Weights and the alpha steps of a search stay in float32.
        threads: Threads of one process on the CPU; part of bit-for-bit reproducibility where the library's layers
            run, but not of the kernels.
        kernels: ``auto``: native kernels compute the layers they know on the CPU in float32 (:mod:`search.kernels`);
            ``off``: plain PyTorch does, by the same rule.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: int = Field(default=2, ge=1, le=1024)
    kernels: Kernels = "auto"


def set_up(compute: ComputeSettings, seed: int) -> Fabric:
    """Fix threads, algorithms and seeds, and make the Fabric (torchrun's and Slurm's environments are honoured)."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", where="compute.device", allowed="auto, cpu")
    if not 0 <= seed < 2**31:
        raise InputError(f"{seed} is no seed", where="--seed", allowed="0 to 2147483647")
    torch.set_num_threads(compute.threads)
    native.choose(compute.kernels)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # It would write NaN into every new tensor, to find reads before writes: a tenth of a step for no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    fabric = make_fabric(compute)
    fabric.launch()
    seed_all(seed)
    return fabric


def make_fabric(compute: ComputeSettings) -> Fabric:
    """The Fabric of the settings for the processes that torchrun or Slurm started, not launched yet."""
    processes, per_machine = launched_processes()
    return Fabric(
        accelerator=compute.device,
        devices=per_machine,
        num_nodes=processes // per_machine,
        strategy="ddp" if processes > 1 else "auto",
        **_precision(compute),
    )


def launched_processes() -> tuple[int, int]:
    """Processes in all and on each machine, as torchrun or Slurm's srun says; (1, 1) where neither started this.

    Which process this is, and where the others are, Fabric reads from the same environment.

    Raises:
        InputError: If a Slurm job has several tasks, but this one would wait for others that never come, or each
            would run alone.
    """
    if not TorchElasticEnvironment.detect() and "SLURM_NTASKS" in os.environ:
        return _slurm_tasks()
    return int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _slurm_tasks() -> tuple[int, int]:
    tasks, by_srun = int(os.environ["SLURM_NTASKS"]), "SLURM_STEP_ID" in os.environ
    if tasks == 1:
        return 1, 1
    if not SLURMEnvironment.detect():
        # Fabric takes a job of this name for a shell that someone types into, where programs run alone.
        if by_srun:
            raise InputError(
                f"in a Slurm job named {os.environ['SLURM_JOB_NAME']} each of the {tasks} tasks would run alone",
                mend="start them with srun --job-name=training",
            )
        return 1, 1
    if not by_srun:
        raise InputError(
            f"the Slurm job has {tasks} tasks, and srun did not start this one",
            mend="start it with srun, or give the job one task",
        )
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError(
            "Slurm did not say how many tasks a machine has", mend="start the job with --ntasks-per-node"
        )
    return tasks, tasks // int(os.environ.get("SLURM_NNODES", "1"))


def _precision(compute: ComputeSettings) -> dict[str, Any]:
    """Fabric's arguments for the precision; on a CPU Fabric would put bfloat16 in float16's place."""
    on_cpu = compute.device == "cpu" or (compute.device == "auto" and not torch.cuda.is_available())
    if compute.precision == "16-mixed" and on_cpu:
        return {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))}
    return {"precision": compute.precision}


def prepare(fabric: Fabric, module: ModuleType) -> ModuleType:
    """:func:`place` a network for training; with several processes its batch norms see the global batch.

    To be called before the optimiser is made, by every process with the same network.
    """
    return with_global_norms(place(module, fabric.device))


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
        loss = exact.cross_entropy(logits, y, reduction="sum")
        sums += torch.tensor([hits[:, 0].sum(), hits.sum(), loss, len(y)], dtype=torch.float64)
    model.train(was_training)
    sums = reduce_sum(fabric, sums)
    total = max(float(sums[3]), 1.0)
    return Evaluation(float(sums[0]) / total, float(sums[1]) / total, float(sums[2]) / total, int(sums[3]))


def reduce_sum(fabric: Fabric, value: Tensor) -> Tensor:
    """Sum over all processes; the value itself where there is one."""
    return value if fabric.world_size == 1 else cast(Tensor, fabric.all_reduce(value, reduce_op="sum"))


def average_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all processes, by one sum (a sampled supernet uses other parameters in every step).

    It is the gradient of the global batch's mean loss, since every process has an equal slice.
    """
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if fabric.world_size > 1 and found:
        whole = mean_over_processes(torch.cat([gradient.flatten() for gradient in found]))
        for gradient, part in zip(found, whole.split([g.numel() for g in found]), strict=True):
            gradient.copy_(part.view_as(gradient))


def update(
    fabric: Fabric,
    optimiser: Optimizer,
    parameters: Iterable[nn.Parameter],
    clip: float,
    amend: Callable[[], None] | None = None,
) -> None:
    """One optimiser step: average the gradients over all processes, undo float16's loss scale, clip, step.

    The average comes first, so that all processes see the same infinities and, in float16, skip the same steps;
    the scale goes before the norm is taken, so that ``clip`` means the same in every precision.

    Args:
        fabric: Has made the gradients, by ``fabric.backward``.
        optimiser: Holds at least ``parameters``.
        parameters: Those whose gradients are averaged and clipped; one without a gradient is left alone.
        clip: Largest norm of all their gradients together; 0 for no limit.
        amend: Changes the averaged, unscaled gradients before they are clipped: for terms whose size is stated as a
            share of the whole batch's gradient.
    """
    used = [parameter for parameter in parameters if parameter.grad is not None]
    average_gradients(fabric, used)
    fabric.strategy.precision.unscale_gradients(optimiser)
    if amend is not None:
        amend()
    if clip > 0:
        optimisers.clip_gradients(used, clip)
    fabric.strategy.optimizer_step(optimiser)


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine wave from ``start`` at progress 0 to ``end`` at progress 1, as learning rates take it."""
    wave = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress, dtype=torch.float64)).item())
    return end + (start - end) * wave


class Resume:
    """A folder with the state of an unfinished run, named by a fingerprint of all that decides the run.

    Args:
        root: Parent folder; outside every stage's outputs.
        identity: JSON-able description (parameters, seed, data hash, kind of run); the torch version is added.
        code: Fingerprint of the code that runs (:mod:`search.fingerprint`): a state of other code is never found.
    """

    def __init__(self, root: str | Path, identity: dict[str, Any], code: str) -> None:
        self.fingerprint = sha256_json({**identity, "torch": torch.__version__, "code": code})
        self.folder = Path(root) / self.fingerprint[:24]
        self.path = self.folder / "state.pt"

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The saved state, or None where there is nothing to go on from. Never unpickles code.

        All processes must call it. One of them saves; the others need to see its files.
        """
        found = self.path.exists()
        seeing = sum_over_processes(torch.tensor(float(found), device=device))
        if 0 < seeing < world():
            raise InputError(
                f"is seen by {int(seeing)} of {world()} processes",
                where=self.path,
                mend="put runs/ where all machines see it, or delete it to start anew",
            )
        if not found:
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


def precision_name(fabric: Fabric) -> str:
    """The precision as the settings name it; part of what decides a run."""
    return str(fabric.strategy.precision.precision)


def precision_state(fabric: Fabric) -> dict[str, Any]:
    """State of float16's loss scale; empty in the other precisions. Put back by ``load_precision_state``."""
    return fabric.strategy.precision.state_dict()


def load_precision_state(fabric: Fabric, state: dict[str, Any]) -> None:
    """Put back what :func:`precision_state` gave."""
    fabric.strategy.precision.load_state_dict(state)


def rng_state() -> dict[str, Any]:
    """State of torch's global generators (drop path draws from them): the CPU's and this process's GPU's.

    All processes' generators advance alike, so that the state of one is that of all.
    """
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`rng_state` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


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
        LOGGER.info("%s  %s/%s  %s  %.0f s left", self.title, done, self.total, note, left)

    def close(self) -> None:
        """End the display."""
        if self.bar is not None:
            self.bar.stop()
