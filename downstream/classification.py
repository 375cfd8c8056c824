"""Retraining for classification: one trainer for found, published and hand-made networks, 1-bit or real."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from downstream.classification_settings import RetrainSettings, StageSettings
from downstream.models import build, rebuild
from search.binary import reconstruction_error, set_stage
from search.errors import InputError
from search.genotype import Genotype
from search.losses import ClassMeanLoss, distillation, kernel_loss
from search.network import Network
from search.operations import OperationStyle
from search.training import (
    Evaluation,
    Progress,
    Resume,
    average_gradients,
    evaluate,
    peak_memory_mib,
    place,
    rng_state,
    seed_all,
    set_rng_state,
)
from search.weights import load_weights, read_header


class EpochBatches(Protocol):
    """What the trainer reads: :class:`search.data.Batches` or :class:`search.image_folder.FolderBatches`."""

    def __len__(self) -> int: ...  # noqa: D105

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch."""
        ...


def build_network(
    network: str | Genotype, precision: str, classes: int, settings: RetrainSettings
) -> nn.Module:
    """The network of a run: a genotype at the task's size, or a hand-made network at its stem width."""
    chosen = settings.network
    handmade = isinstance(network, str) and _is_handmade(network)
    return build(
        network,
        precision=precision,  # type: ignore[arg-type]
        form=chosen.form,
        channels=chosen.handmade_channels if handmade else chosen.channels,
        cells=None if handmade else chosen.cells,
        classes=classes,
        stem=chosen.stem,
        style=OperationStyle(form=chosen.form, binary=chosen.form != "darts", estimator=chosen.estimator),
        auxiliary=chosen.auxiliary_weight > 0 and not handmade,
        checkpointing=chosen.checkpointing,
    )


def _is_handmade(name: str) -> bool:
    from downstream import handmade

    return name in handmade.NAMES


def load_teacher(path: str | Path) -> nn.Module:
    """A trained network from one of the suite's weight files, frozen and in evaluation mode."""
    model = rebuild(read_header(path)["architecture"])
    load_weights(path, model)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Retrained:
    """A finished training: the network (averaged weights where EMA is on), history, and what it cost."""

    model: nn.Module
    evaluation: Evaluation
    history: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    images_seen: int
    seconds: float
    peak_memory_mib: float


class Trainer:
    """Trains one network through all stages of a recipe.

    Args:
        fabric: Device, precision, processes.
        model: From :func:`build_network`.
        settings: The recipe.
        classes: Number of classes.
        train, test: Batches.
        seed: Decides drop path and all else that is drawn.
        resume: Where the state of an unfinished run is kept.
        title: Name in the progress lines.
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
    ) -> None:
        self.fabric, self.settings, self.train_batches, self.test_batches = fabric, settings, train, test
        self.model = place(model, fabric.device)
        self.resume, self.title, self.quiet, self.seed = resume, title, quiet, seed
        loss = settings.loss
        self.class_mean = ClassMeanLoss(classes, loss.class_mean_rate).to(fabric.device)
        self.teacher = load_teacher(loss.teacher).to(fabric.device) if loss.teacher else None
        if loss.class_mean_weight > 0 and settings.network.auxiliary_weight > 0:
            raise InputError(
                "class_mean_weight and auxiliary_weight are both set",
                mend="set one of them to 0: both add a second output",
            )
        if loss.teacher_weight > 0 and self.teacher is None:
            raise InputError(
                "teacher_weight is set without a teacher",
                where="loss",
                mend="give loss.teacher a weight file",
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
        return Retrained(
            self._evaluated(),
            self.evaluation,
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
            return torch.optim.SGD(groups, stage.learning_rate, momentum=0.9)
        kind: Callable[..., Optimizer] = torch.optim.AdamW if stage.optimiser == "adamw" else torch.optim.Adam
        return kind(groups, stage.learning_rate)

    def _epoch(
        self, number: int, stage: StageSettings, optimiser: Optimizer, epoch: int, overall: int
    ) -> dict[str, Any]:
        """One epoch and its evaluation; gives the row of the history."""
        self.model.train()
        if isinstance(self.model, Network):
            self.model.drop_path = self.settings.network.drop_path * overall / max(self.epochs, 1)
        updates_an_epoch = max(1, len(self.train_batches) // self.settings.accumulation)
        loss_sum = correct = seen = 0.0
        optimiser.zero_grad(set_to_none=True)
        for index, (x, y) in enumerate(self.train_batches.epoch(overall)):
            update, position = divmod(index, self.settings.accumulation)
            if position == 0:
                self._set_rate(optimiser, stage, (epoch + min(1.0, update / updates_an_epoch)) / stage.epochs)
            loss, logits = self._loss(x, y)
            self.fabric.backward(loss / self.settings.accumulation)
            if position == self.settings.accumulation - 1:
                self._update(optimiser)
            loss_sum += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
            seen += len(y)
        self.images_seen += int(seen) * self.fabric.world_size
        self.evaluation = evaluate(
            self.fabric, self._evaluated(), self._evaluated(), self.test_batches.epoch(0)
        )
        return {
            "epoch": overall,
            "stage": number,
            "train_loss": loss_sum / max(seen, 1),
            "train_accuracy": correct / max(seen, 1),
            "accuracy": self.evaluation.accuracy,
            "top5": self.evaluation.top5,
            "loss": self.evaluation.loss,
            "lr": optimiser.param_groups[0]["lr"],
            "images_seen": self.images_seen,
        }

    def _set_rate(self, optimiser: Optimizer, stage: StageSettings, progress: float) -> None:
        wave = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress, dtype=torch.float64)).item())
        for group in optimiser.param_groups:
            group["lr"] = stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * wave

    def _update(self, optimiser: Optimizer) -> None:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        average_gradients(self.fabric, parameters)
        if self.settings.clip > 0:
            nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The recipe's loss of a batch, and the logits (B, classes)."""
        chosen = self.settings.loss
        with self.fabric.autocast():
            auxiliary = None
            if chosen.class_mean_weight > 0:
                features = self.model.forward_features(x)  # type: ignore[operator]
                last = features[max(features)]
                pooled = F.adaptive_avg_pool2d(last, 1).flatten(1)
                output = self.model.classifier(pooled)  # type: ignore[operator]
            else:
                output = self.model(x)
            if isinstance(output, tuple):
                output, auxiliary = output
            loss = F.cross_entropy(output, y, label_smoothing=chosen.label_smoothing)
            if self.teacher is not None:
                with torch.no_grad():
                    target = self.teacher(x)
                soft = distillation(output, target, chosen.temperature)
                loss = chosen.teacher_weight * soft + (1 - chosen.teacher_weight) * loss
            if auxiliary is not None:
                loss = loss + self.settings.network.auxiliary_weight * F.cross_entropy(
                    auxiliary, y, label_smoothing=chosen.label_smoothing
                )
        if chosen.class_mean_weight > 0:
            loss = loss + chosen.class_mean_weight * self.class_mean(last.float(), y)
        if chosen.kernel_weight > 0:
            loss = loss + chosen.kernel_weight * kernel_loss(self.model)
        if chosen.reconstruction_weight > 0:
            loss = loss + chosen.reconstruction_weight * reconstruction_error(self.model)
        return loss, output.detach()

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
            "rng": rng_state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.class_mean.means = state["class_mean"]
        self.history, self.timing = state["history"], state["timing"]
        self.images_seen = state["images_seen"]
        set_rng_state(state["rng"])
