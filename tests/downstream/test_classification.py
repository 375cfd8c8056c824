from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from downstream import handmade
from downstream.classification.network import build_network
from downstream.classification.recalibration import recalibrate
from downstream.classification.settings import RetrainSettings
from downstream.classification.teacher import load_teacher
from downstream.classification.trainer import Trainer
from downstream.models import binarised, load_network
from search.binary import quant_convs
from search.data import Batches
from search.errors import InputError
from search.training import Evaluation, Resume, evaluate, set_up
from search.weights import hash_state, save_weights
from tests.search import tiny
from tests.search.tiny import BLOCK

NETWORK = {
    "form": "paper",
    "block": BLOCK,
    "estimator": "bireal",
    "stem": "cifar",
    "channels": 4,
    "cells": 3,
    "handmade_channels": 8,
    "auxiliary_weight": 0.0,
    "drop_path": 0.2,
    "checkpointing": False,
}
STAGE = {
    "epochs": 2,
    "binary_activations": True,
    "binary_weights": True,
    "optimiser": "adam",
    "learning_rate": 0.01,
    "final_learning_rate": 0.0,
    "weight_decay": 0.0,
    "decay_vectors": False,
}
LOSS = {
    "kernel_weight": 0.0001,
    "class_mean_weight": 0.001,
    "class_mean_rate": 0.5,
    "reconstruction_weight": 0.0,
    "label_smoothing": 0.1,
    "teacher": None,
    "teacher_weight": 0.0,
    "teacher_cache": "none",
    "temperature": 1.0,
}


def recipe(
    network: dict[str, Any] | None = None, loss: dict[str, Any] | None = None, **changes: Any
) -> RetrainSettings:
    values: dict[str, Any] = {
        "network": NETWORK | (network or {}),
        "variants": {},
        "stages": [STAGE | {"binary_weights": False}, STAGE],
        "loss": LOSS | (loss or {}),
        "train_images": 0,
        "test_images": 0,
        "augmentation": {"crop_padding": 1, "flip": True, "cutout": 4},
        "crop": {"size": 32, "resize": 32, "smallest_crop": 1.0, "lighting": 0.0, "decoder": "pil"},
        "batch_size": 16,
        "accumulation": 1,
        "clip": 5.0,
        "ema": 0.9,
        "recalibrate_images": 0,
        "workers": 0,
    }
    return RetrainSettings.model_validate(values | changes)


def trainer(
    root: Path,
    settings: RetrainSettings,
    seed: int = 0,
    network: str = "DARTS_V2",
    teacher: torch.nn.Module | None = None,
    precision: str = "32-true",
) -> Trainer:
    fabric = set_up(tiny.COMPUTE.model_copy(update={"precision": precision}), seed)
    data = tiny.images(64)
    size = settings.batch_size // settings.accumulation
    return Trainer(
        fabric,
        build_network(network, "1bit", 4, settings),
        settings,
        4,
        Batches(data, size, seed=seed, augmentation=settings.augmentation),
        Batches(tiny.images(48, seed=0), size),
        seed,
        Resume(root, {"seed": seed, "network": network}, "code"),
        quiet=True,
        teacher=teacher,
    )


def test_it_learns_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    first = trainer(tmp_path / "a", recipe(ema=0.0)).run()
    again = trainer(tmp_path / "b", recipe(ema=0.0)).run()
    assert first.history == again.history
    assert hash_state(first.model) == hash_state(again.model)
    assert first.history[-1]["train_loss"] < first.history[0]["train_loss"]
    assert first.evaluation.accuracy > 0.5  # four classes: chance is 0.25
    assert first.images_seen == 4 * 64
    other = trainer(tmp_path / "c", recipe(ema=0.0), seed=1).run()
    assert other.history != first.history


@pytest.mark.parametrize(
    ("precision", "epochs"),
    [("32-true", 1), ("32-true", 2), ("32-true", 3), ("bf16-mixed", 2), ("16-mixed", 1)],
)
def test_killed_after_an_epoch_goes_on_bit_for_bit(
    tmp_path: Path, precision: str, epochs: int, monkeypatch
) -> None:
    """In the first stage, between the stages, and in the second one; with EMA, drop path and class means.

    In float16 the loss scale is part of the state: it starts so high that the first steps are skipped.
    """
    whole = trainer(tmp_path / "whole", recipe(), precision=precision).run()

    class Killed(BaseException):
        pass

    save = Resume.save

    def saving(self: Resume, state: dict[str, Any]) -> None:
        save(self, state)
        if len(state["history"]) == epochs:
            raise Killed

    monkeypatch.setattr(Resume, "save", saving)
    with pytest.raises(Killed):
        trainer(tmp_path / "cut", recipe(), precision=precision).run()
    monkeypatch.setattr(Resume, "save", save)
    torch.rand(7)  # whatever the generator's state is now
    resumed = trainer(tmp_path / "cut", recipe(), precision=precision).run()
    assert resumed.history == whole.history
    assert hash_state(resumed.model) == hash_state(whole.model)


def test_stages_binarise_activations_first(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Watching(Trainer):
        def _epoch(self, *arguments: Any) -> dict[str, Any]:
            conv = next(conv for _, conv in quant_convs(self.model))
            seen.append((conv.input_quantiser.precision, conv.weight_quantiser.precision))
            return super()._epoch(*arguments)

    base = trainer(tmp_path, recipe())
    base.__class__ = Watching
    base.run()
    assert seen == [(1, 32), (1, 32), (1, 1), (1, 1)]


def test_a_teacher_is_distilled(tmp_path: Path) -> None:
    first = trainer(tmp_path / "teacher", recipe())
    save_weights(tmp_path / "t.safetensors", first.model)
    teacher = load_teacher(tmp_path / "t.safetensors", "cifar10", classes=4)
    loss = {"teacher": str(tmp_path / "t.safetensors"), "teacher_weight": 1.0}
    run = trainer(tmp_path / "student", recipe(loss=loss), teacher=teacher).run()
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    alone = trainer(tmp_path / "alone", recipe()).run()
    assert run.history != alone.history


@pytest.mark.parametrize("network", handmade.NAMES)
def test_class_means_leave_the_logits_as_they_are(network: str, tmp_path: Path) -> None:
    """The map is taken on the way; XNOR-Net has a batch norm behind it."""
    made = trainer(tmp_path, recipe({"handmade_channels": 4}), network=network)
    made.model.eval()
    x = torch.randn(2, 3, 32, 32)
    logits, auxiliary, last = made._forward(x)
    assert torch.equal(logits, made.model(x)) and auxiliary is None
    assert last is not None and last.shape[1] == made.model.num_features


def test_the_auxiliary_head_is_exported_with_the_network(tmp_path: Path) -> None:
    with_head = trainer(tmp_path / "a", recipe({"auxiliary_weight": 0.4}, {"class_mean_weight": 0.0})).run()
    assert any(key.startswith("auxiliary.") for key in with_head.model.state_dict())


def test_two_second_outputs_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class_mean_weight and auxiliary_weight"):
        trainer(tmp_path, recipe({"auxiliary_weight": 0.4}))


def test_a_recipe_with_a_teacher_needs_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="loss.teacher: the recipe has a teacher, and none was given"):
        trainer(tmp_path, recipe(loss={"teacher": "t.pth", "teacher_weight": 0.5}))


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        ({"teacher_weight": 0.5}, {}, "teacher_weight is set without a teacher"),
        ({"teacher": "t.pth"}, {}, "teacher_weight is 0"),
        ({}, {"accumulation": 3}, "batch_size 16 does not divide into 3 steps"),
        ({}, {"accumulation": 32}, "batch_size 16 does not divide into 32 steps"),
    ],
)
def test_settings_that_contradict_each_other(
    loss: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(loss=loss, **changes)


def test_a_training_that_diverges_ends_with_its_reason(tmp_path: Path) -> None:
    """The wildest that the settings allow: the decay alone multiplies every weight by -99 in a step."""
    wild = STAGE | {
        "optimiser": "sgd",
        "learning_rate": 100.0,
        "final_learning_rate": 100.0,
        "weight_decay": 1.0,
    }
    with pytest.raises(InputError, match="learning_rate 100.0: the training diverged in epoch 2"):
        trainer(tmp_path, recipe(stages=[wild], clip=0.0)).run()


def test_more_steps_than_batches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="accumulation: 4 batches are less than the 8 of one update"):
        trainer(tmp_path, recipe(accumulation=8, batch_size=128))


def test_a_rest_that_makes_no_update_is_left_out(tmp_path: Path) -> None:
    """64 images in steps of 8, three to an update: two updates of 24 images an epoch."""
    made = trainer(tmp_path, recipe(accumulation=3, batch_size=24))
    assert made.run().images_seen == 4 * 48


def test_exported_average_gives_the_recorded_accuracy(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", recipe()).run()
    save_weights(tmp_path / "w.safetensors", run.model)
    loaded, _ = load_network(tmp_path / "w.safetensors")
    assert evaluated(loaded) == run.evaluation


def evaluated(model: torch.nn.Module) -> Evaluation:
    fabric = set_up(tiny.COMPUTE, 0)
    return evaluate(fabric, model, model, Batches(tiny.images(48, seed=0), 16).epoch(0))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_recalibration_is_what_is_evaluated_and_exported(ema: float, tmp_path: Path) -> None:
    plain = trainer(tmp_path / "a", recipe(ema=ema)).run()
    run = trainer(tmp_path / "b", recipe(ema=ema, recalibrate_images=20)).run()
    assert (plain.recalibrated_images, run.recalibrated_images) == (0, 32)  # whole batches
    assert run.history == plain.history
    assert run.evaluation != plain.evaluation
    save_weights(tmp_path / "w.safetensors", run.model)
    loaded, _ = load_network(tmp_path / "w.safetensors")
    assert evaluated(loaded) == run.evaluation
    for (name, ours), (_, theirs) in zip(
        run.model.named_parameters(), plain.model.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_recalibration_is_the_plain_average_over_the_batches(tmp_path: Path) -> None:
    made = trainer(tmp_path, recipe())
    model: Any = made.model.train()
    norm = model.stem.stem[1]
    norm.running_mean.fill_(7.0)
    recalibrate(made.fabric, model, made.train_batches.epoch(3), 2)
    with torch.no_grad():
        maps = [model.stem.stem[0](x) for x, _ in made.train_batches.epoch(3)][:2]
    assert torch.allclose(norm.running_mean, sum(x.mean((0, 2, 3)) for x in maps) / 2, atol=1e-5)
    assert torch.allclose(norm.running_var, sum(x.var((0, 2, 3)) for x in maps) / 2, atol=1e-5)
    assert all(module.training for module in model.modules())
    assert norm.momentum == 0.1


def test_a_file_of_the_first_stage_keeps_its_real_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", recipe(stages=[STAGE | {"binary_weights": False}])).run()
    save_weights(tmp_path / "w.safetensors", run.model, {"binarised": binarised(True, False)})
    loaded, _ = load_network(tmp_path / "w.safetensors")
    assert evaluated(loaded) == run.evaluation
    save_weights(tmp_path / "w.safetensors", run.model)
    assert evaluated(load_network(tmp_path / "w.safetensors")[0]) != run.evaluation


def test_a_variant_changes_the_network_and_nothing_else() -> None:
    chosen = recipe(
        variants={"narrow": {"channels": 2}, "real-depthwise": {"block": {"depthwise": "w32a32"}}}
    )
    assert chosen.of("DARTS_V1") == recipe()
    assert chosen.of("DARTS_V1--narrow") == recipe(network={"channels": 2})
    changed = chosen.of("cp_nas-s0--real-depthwise").network
    assert changed.block.depthwise == "w32a32" and changed.block.parent_block == "original"
    with pytest.raises(
        InputError, match="DARTS_V1--wide is no known variant; allowed: narrow, real-depthwise"
    ):
        chosen.of("DARTS_V1--wide")


def test_a_variant_must_make_a_network() -> None:
    with pytest.raises(ValidationError, match="variants.odd.block.depthwise is 'w2a2'"):
        recipe(variants={"odd": {"block": {"depthwise": "w2a2"}}})
