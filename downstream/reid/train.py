"""Training with Torchreid's engines: seeded, resumable, one row of history an epoch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from downstream.reid.compat import quiet, torchreid
from downstream.reid.loaders import Loaders
from downstream.reid.settings import ReidSettings
from search.errors import InputError
from search.training import Resume

Row = dict[str, float]
# Torchreid's default for Adam's second beta is 0.99; the strong baseline has torch's 0.999.
ADAM_BETAS = (0.9, 0.999)
_SILENT = 1_000_000_000


def learning_rate_factor(settings: ReidSettings, epoch: int) -> float:
    """What the learning rate is multiplied by in ``epoch`` (from 0): linear warm-up, then steps of gamma."""
    factor = settings.gamma ** sum(epoch >= step for step in settings.steps)
    if epoch < settings.warmup_epochs:
        start = settings.warmup_factor
        factor *= start + (1 - start) * epoch / settings.warmup_epochs
    return factor


def seed_everything(seed: int, epoch: int) -> None:
    """Seed Python, numpy and torch for one epoch, independently of all others (so resume needs no state)."""
    torchreid().utils.set_random_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))


def build_engine(model: nn.Module, loaders: Loaders, settings: ReidSettings, *, use_gpu: bool) -> Any:
    """Torchreid's ``ImageSoftmaxEngine`` or ``ImageTripletEngine`` that keeps each batch's losses.

    Args:
        model: A Torchreid model of ``settings.loss``, on its device.
        loaders: Batches.
        settings: Loss, optimiser, schedule.
        use_gpu: Whether batches go to the GPU.
    """
    package = torchreid()
    optimizer = package.optim.build_optimizer(
        model,
        optim="adam",
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
    )
    scheduler = LambdaLR(optimizer, lambda epoch: learning_rate_factor(settings, epoch))
    common = {"scheduler": scheduler, "use_gpu": use_gpu, "label_smooth": settings.label_smoothing > 0}
    if settings.loss == "triplet":
        engine = _recording(package.engine.ImageTripletEngine)(
            loaders.manager,
            model,
            optimizer,
            margin=settings.margin,
            weight_t=settings.triplet_weight,
            **common,
        )
        engine.criterion_x.eps = settings.label_smoothing
    else:
        engine = _recording(package.engine.ImageSoftmaxEngine)(loaders.manager, model, optimizer, **common)
        engine.criterion.eps = settings.label_smoothing
    return engine


def _recording(base: type) -> type:
    """A subclass of a Torchreid engine that keeps each batch's losses in ``batches`` (its own keeps none)."""

    def forward_backward(self: Any, data: Any) -> dict[str, float]:
        summary: dict[str, float] = base.forward_backward(self, data)  # type: ignore[attr-defined]
        self.batches.append((summary, len(data["pid"])))
        return summary

    return type(base.__name__, (base,), {"forward_backward": forward_backward, "batches": []})


def train(
    model: nn.Module,
    loaders: Loaders,
    settings: ReidSettings,
    *,
    seed: int,
    device: torch.device,
    resume: Resume | None = None,
    report: Callable[[Row], None] = lambda row: None,
    measure: Callable[[], Mapping[str, float]] = dict,
) -> list[Row]:
    """Train ``model`` in place for ``settings.epochs`` epochs.

    Args:
        model: A Torchreid model, on ``device``.
        loaders: Batches.
        settings: The recipe.
        seed: Of batches and augmentation; epoch ``e`` draws from (seed, e).
        device: CPU or the first GPU, as Torchreid's engines know no other.
        resume: Where the state is kept after every epoch and looked for at the start; None: no resume. It
            holds no generator: every epoch seeds its own from ``seed`` and its number.
        report: Called with every new row.
        measure: Called after every ``settings.evaluate_every`` epochs but the last; what it gives joins the row.
            It changes nothing of the training: every epoch seeds its own draws.

    Returns:
        One row an epoch: epoch, loss, accuracy (of the identity classifier, per cent, on augmented batches),
        lr, images, seconds; with the triplet loss its two parts too; and what ``measure`` gave.

    Raises:
        InputError: The loss is not finite, or the saved state is another run's.
    """
    engine = build_engine(model, loaders, settings, use_gpu=device.type == "cuda")
    history = _restore(engine, resume.load(device)) if resume is not None else []
    engine.max_epoch = settings.epochs
    with deterministic():
        for epoch in range(len(history), settings.epochs):
            history.append(_epoch(engine, settings, seed, epoch))
            if _evaluated(settings, epoch + 1):
                history[-1].update(measure())
            if resume is not None:
                resume.save({"history": history, **_state(engine)})
            report(history[-1])
    return history


def _evaluated(settings: ReidSettings, epoch: int) -> bool:
    every = settings.evaluate_every
    return bool(every) and epoch % every == 0 and epoch < settings.epochs


def _parts(engine: Any) -> dict[str, Any]:
    return {"model": engine.model, "optimizer": engine.optimizer, "scheduler": engine.scheduler}


def _state(engine: Any) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in _parts(engine).items()}


def _restore(engine: Any, state: dict[str, Any] | None) -> list[Row]:
    """Put a saved state into ``engine``; returns the history so far."""
    if state is None:
        return []
    for name, part in _parts(engine).items():
        part.load_state_dict(state[name])
    return list(state["history"])


def _epoch(engine: Any, settings: ReidSettings, seed: int, epoch: int) -> Row:
    seed_everything(seed, epoch)
    engine.epoch, engine.batches = epoch, []
    rate = float(engine.get_current_lr())
    started = time.perf_counter()
    with quiet():
        engine.train(print_freq=_SILENT)
    seconds = time.perf_counter() - started
    parts = {name: fmean(summary[name] for summary, _ in engine.batches) for name in engine.batches[0][0]}
    if "loss" not in parts:
        parts["loss"] = settings.triplet_weight * parts["loss_t"] + parts["loss_x"]
    if not np.isfinite(parts["loss"]):
        raise InputError(f"the loss is {parts['loss']} in epoch {epoch + 1}", mend="lower reid.learning_rate")
    row = {"epoch": epoch + 1, "loss": parts["loss"], "accuracy": parts["acc"], "lr": rate}
    row.update({key: parts[key] for key in ("loss_t", "loss_x") if key in parts})
    row.update(images=sum(count for _, count in engine.batches), seconds=seconds)
    return row


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic kernels inside the block (one without such a form warns); the old choice after it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
