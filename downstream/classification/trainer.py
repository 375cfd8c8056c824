"""Retraining for classification: one trainer for found, published and hand-made networks, 1-bit or real."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from downstream.classification.batches import EpochBatches
from downstream.classification.recalibration import recalibrate
from downstream.classification.settings import RetrainSettings, StageSettings
from downstream.classification.shares import DATA, gradient_shares
from search import exact, optimisers
from search.binary import reconstruction_error, set_stage
from search.errors import InputError
from search.flips import SignWatch
from search.losses import ClassMeanLoss, distillation, kernel_loss
from search.network import Network
from search.training import (
    Evaluation,
    Progress,
    Resume,
    cosine,
    evaluate,
    load_precision_state,
    peak_memory_mib,
    precision_state,
    prepare,
    reduce_sum,
    rng_state,
    seed_all,
    set_rng_state,
    update,
)

TERMS = ("class_mean", "kernel", "reconstruction")
"""Terms beside the data's; each has a column ``<term>_share`` in the history, its gradient over the data's."""


def refuse_divergence(train_loss: float, test_loss: float, epoch: int, stage: StageSettings) -> None:
    """End a training whose losses are no numbers any more: nothing that follows could mend it."""
    if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
        raise InputError(
            f"the training diverged in epoch {epoch + 1}: loss {train_loss}, on test images {test_loss}",
            where=f"stages: learning_rate {stage.learning_rate}",
            mend="lower it, or set clip",
        )


@dataclass(frozen=True)
class Retrained:
    """A finished training.

    Attributes:
        model: The network as it was evaluated: averaged weights where EMA is on, recalibrated where asked for.
        evaluation: Of ``model`` on the test images.
        recalibrated_images: Training images that batch norm was recalibrated with; 0 for none.
        history: One row an epoch; the last one is of before the recalibration.
        timing: Seconds since the start by epoch.
        images_seen: Training images of all epochs and processes.
        seconds, peak_memory_mib: What it cost.
    """

    model: nn.Module
    evaluation: Evaluation
    recalibrated_images: int
    history: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    images_seen: int
    seconds: float
    peak_memory_mib: float


class Trainer:
    """Trains one network through all stages of a recipe.

    Args:
        fabric: Device, precision, processes.
        model: From :func:`downstream.classification.network.build_network`.
        settings: The recipe.
        classes: Number of classes.
        train, test: Batches of ``batch_size / accumulation`` images over all processes.
        seed: Decides drop path and all else that is drawn.
        resume: Where the state of an unfinished run is kept.
        title: Name in the progress lines.
        quiet: Without progress lines.
        teacher: Gives logits of images and their places in the set (see :mod:`downstream.classification.teacher`).
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        settings: RetrainSettings,
        classes: int,
        train: EpochBatches,
        test: EpochBatches,
        seed: int,
        resume: Resume,
        title: str = "retrain",
        quiet: bool = False,
        teacher: nn.Module | None = None,
    ) -> None:
        self.fabric, self.settings, self.train_batches, self.test_batches = fabric, settings, train, test
        self.model = prepare(fabric, model)
        self.teacher = teacher
        self.updates_an_epoch = len(train) // settings.accumulation
        self.resume, self.title, self.quiet, self.seed = resume, title, quiet, seed
        loss = settings.loss
        self.class_mean = ClassMeanLoss(classes, loss.class_mean_rate).to(fabric.device)
        if loss.class_mean_weight > 0 and settings.network.auxiliary_weight > 0:
            raise InputError(
                "class_mean_weight and auxiliary_weight are both set",
                mend="set one of them to 0: both add a second output",
            )
        if loss.teacher_weight > 0 and self.teacher is None:
            raise InputError("the recipe has a teacher, and none was given", where="loss.teacher")
        if self.updates_an_epoch == 0:
            raise InputError(
                f"{len(train)} batches are less than the {settings.accumulation} of one update",
                where="accumulation",
            )
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
            if settings.ema
            else None
        )
        self.history: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self.images_seen = 0
        self.evaluation = Evaluation(0.0, 0.0, 0.0, 0)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.settings.stages)

    def run(self) -> Retrained:
        """Train, from a saved state if there is one; evaluates after every epoch."""
        seed_all(self.seed)
        state = self.resume.load(self.fabric.device)
        before = 0.0
        if state is not None:
            self._restore(state)
            before = self.timing[-1]["seconds"]
        started = time.monotonic()
        progress = Progress(
            self.title, self.epochs, len(self.history), self.quiet or not self.fabric.is_global_zero
        )
        first = 0
        for number, stage in enumerate(self.settings.stages):
            if len(self.history) < first + stage.epochs:
                set_stage(self.model, activations=stage.binary_activations, weights=stage.binary_weights)
                optimiser = self._optimiser(stage)
                if state is not None and len(self.history) > first:
                    optimiser.load_state_dict(state["optimiser"])
                state = None
                for epoch in range(len(self.history) - first, stage.epochs):
                    row = self._epoch(number, stage, optimiser, epoch, first + epoch)
                    self.history.append(row)
                    self.timing.append(
                        {"epoch": first + epoch, "seconds": before + time.monotonic() - started}
                    )
                    progress.update(first + epoch + 1, f"accuracy {row['accuracy']:.3f}")
                    if first + epoch + 1 < self.epochs and self.fabric.is_global_zero:
                        self.resume.save(self._state(optimiser))
            first += stage.epochs
        progress.close()
        recalibrated = self._recalibrate() if self.settings.recalibrate_images else 0
        return Retrained(
            self._evaluated(),
            self.evaluation,
            recalibrated,
            self.history,
            self.timing,
            self.images_seen,
            self.timing[-1]["seconds"],
            peak_memory_mib(self.fabric),
        )

    def _optimiser(self, stage: StageSettings) -> Optimizer:
        decayed = [p for p in self.model.parameters() if p.ndim > 1 or stage.decay_vectors]
        plain = [p for p in self.model.parameters() if not (p.ndim > 1 or stage.decay_vectors)]
        groups = [
            {"params": decayed, "weight_decay": stage.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        if stage.optimiser == "sgd":
            return optimisers.SGD(groups, stage.learning_rate, momentum=0.9)
        kind: Callable[..., Optimizer] = optimisers.AdamW if stage.optimiser == "adamw" else optimisers.Adam
        return kind(groups, stage.learning_rate)

    def _epoch(
        self, number: int, stage: StageSettings, optimiser: Optimizer, epoch: int, overall: int
    ) -> dict[str, Any]:
        """One epoch and its evaluation; gives the row of the history."""
        self.model.train()
        if isinstance(self.model, Network):
            self.model.drop_path = self.settings.network.drop_path * overall / max(self.epochs, 1)
        steps = self.settings.accumulation
        sums = torch.zeros(3, dtype=torch.float64)
        optimiser.zero_grad(set_to_none=True)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        watch, shares = SignWatch(self.model), dict[str, float]()
        batches = zip(self.train_batches.epoch(overall), self.train_batches.indices(overall), strict=True)
        for index, ((x, y), chosen) in enumerate(islice(batches, self.updates_an_epoch * steps)):
            number_of_update, position = divmod(index, steps)
            if position == 0:
                self._set_rate(
                    optimiser, stage, (epoch + number_of_update / self.updates_an_epoch) / stage.epochs
                )
            terms, logits = self._terms(x, y, chosen)
            loss = torch.stack(list(terms.values())).sum()
            if number_of_update == self.updates_an_epoch - 1 and position == 0:
                shares = gradient_shares(terms, trained)
            self.fabric.backward(loss / steps)
            if position == steps - 1:
                self._update(optimiser)
            correct = (logits.argmax(1) == y).sum().item()
            sums += torch.tensor([loss.item() * len(y), correct, len(y)], dtype=torch.float64)
        loss_sum, correct, seen = reduce_sum(self.fabric, sums).tolist()
        self.images_seen += int(seen)
        flips = watch.flips()
        self._evaluate()
        refuse_divergence(loss_sum / seen, self.evaluation.loss, overall, stage)
        return {
            "epoch": overall,
            "stage": number,
            "train_loss": loss_sum / seen,
            "train_accuracy": correct / seen,
            "accuracy": self.evaluation.accuracy,
            "top5": self.evaluation.top5,
            "loss": self.evaluation.loss,
            "lr": optimiser.param_groups[0]["lr"],
            "sign_flips": flips.changed,
            "sign_flip_share": flips.share,
            **{f"{name}_share": shares.get(name) for name in TERMS},
            "images_seen": self.images_seen,
        }

    def _evaluate(self) -> None:
        model = self._evaluated()
        self.evaluation = evaluate(self.fabric, model, model, self.test_batches.epoch(0))

    def _recalibrate(self) -> int:
        """Recalibrate what is exported and evaluate it again; gives the number of training images it took."""
        size = self.settings.batch_size // self.settings.accumulation
        count = min(math.ceil(self.settings.recalibrate_images / size), len(self.train_batches))
        recalibrate(self.fabric, self._evaluated(), self.train_batches.epoch(self.epochs), count)
        self._evaluate()
        return count * size

    def _set_rate(self, optimiser: Optimizer, stage: StageSettings, progress: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = cosine(progress, stage.learning_rate, stage.final_learning_rate)

    def _update(self, optimiser: Optimizer) -> None:
        update(self.fabric, optimiser, self.model.parameters(), self.settings.clip)
        optimiser.zero_grad(set_to_none=True)
        self.class_mean.follow(lambda value: reduce_sum(self.fabric, value))
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _terms(self, x: Tensor, y: Tensor, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms of the recipe's loss of a step, and the logits (B, classes).

        The mean of their sum over the steps of an accumulation and over all processes is the loss of the global batch.
        """
        chosen = self.settings.loss
        with self.fabric.autocast():
            output, auxiliary, last = self._forward(x)
            loss = exact.cross_entropy(output, y, label_smoothing=chosen.label_smoothing)
            if self.teacher is not None:
                soft = distillation(output, self.teacher(x, indices), chosen.temperature)
                loss = chosen.teacher_weight * soft + (1 - chosen.teacher_weight) * loss
            if auxiliary is not None:
                loss = loss + self.settings.network.auxiliary_weight * exact.cross_entropy(
                    auxiliary, y, label_smoothing=chosen.label_smoothing
                )
        terms = {DATA: loss}
        if last is not None:
            terms["class_mean"] = chosen.class_mean_weight * self.class_mean(last.float(), y)
        if chosen.kernel_weight > 0:
            terms["kernel"] = chosen.kernel_weight * kernel_loss(self.model)
        if chosen.reconstruction_weight > 0:
            terms["reconstruction"] = chosen.reconstruction_weight * reconstruction_error(self.model)
        return terms, output.detach()

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Logits, those of the auxiliary head if there is one, and the last map if its class means are wanted."""
        if self.settings.loss.class_mean_weight > 0:
            features = self.model.forward_features(x)  # type: ignore[operator]
            last = features[max(features)]
            tail = getattr(self.model, "tail", nn.Identity())  # XNOR-Net's batch norm before the classifier
            return exact.linear(exact.spatial_mean(tail(last)), self.model.classifier), None, last  # type: ignore[arg-type]
        output = self.model(x)
        return (*output, None) if isinstance(output, tuple) else (output, None, None)

    def _evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the averaged one where EMA is on."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        for ours, theirs in zip(self.model.modules(), averaged.modules(), strict=True):
            if hasattr(ours, "enabled"):
                theirs.enabled = ours.enabled
        return averaged

    def _state(self, optimiser: Optimizer) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "class_mean": self.class_mean.means,
            "history": copy.deepcopy(self.history),
            "timing": self.timing,
            "images_seen": self.images_seen,
            "precision": precision_state(self.fabric),
            "rng": rng_state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.class_mean.means = state["class_mean"]
        self.history, self.timing = state["history"], state["timing"]
        self.images_seen = state["images_seen"]
        load_precision_state(self.fabric, state["precision"])
        set_rng_state(state["rng"])
