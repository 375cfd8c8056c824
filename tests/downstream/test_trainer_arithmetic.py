"""What the trainer computes, against the formulas written out: every term of the loss, an update, the schedules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from downstream.classification.trainer import Trainer
from search.binary import quant_convs, sign
from search.data import Batches
from search.training import Resume, set_up
from tests.downstream.test_classification import STAGE, recipe, trainer
from tests.search import tiny

NO_TERMS = {
    "kernel_weight": 0.0,
    "class_mean_weight": 0.0,
    "label_smoothing": 0.0,
    "reconstruction_weight": 0.0,
}


class Asked(nn.Module):
    """A teacher with an answer of its own for each image of the set."""

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(64, 4, generator=generator)[indices]


def hard(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy; smoothed labels give every class smoothing / C."""
    wanted = torch.full_like(logits, smoothing / logits.shape[1])
    wanted[torch.arange(len(y)), y] += 1 - smoothing
    return -(wanted * logits.log_softmax(1)).sum(1).mean()


def soft(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Cross entropy with the softened teacher, times T^2 (Hinton et al., 2015)."""
    wanted = (taught / temperature).softmax(1)
    return -(wanted * (logits / temperature).log_softmax(1)).sum(1).mean() * temperature**2


def step(made: Trainer) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The trainer's loss of one batch, and images, labels, places and logits of it, at the same weights."""
    made.model.eval() if not hasattr(made.model, "auxiliary") else made.model.train()
    x, y = next(made.train_batches.epoch(0))
    chosen = next(made.train_batches.indices(0))
    terms, logits = made._terms(x, y, chosen)
    loss = torch.stack(list(terms.values())).sum()
    return loss, x, y, chosen, logits


def test_smoothed_labels(tmp_path: Path) -> None:
    loss, _, y, _, logits = step(trainer(tmp_path, recipe(loss=NO_TERMS | {"label_smoothing": 0.2})))
    assert loss.item() == pytest.approx(hard(logits, y, 0.2).item(), rel=1e-5)
    assert loss.item() != pytest.approx(hard(logits, y).item(), rel=1e-3)


def test_a_teacher_has_its_share_and_the_labels_the_rest(tmp_path: Path) -> None:
    taught = {"teacher": "t.pth", "teacher_weight": 0.7, "temperature": 2.0, "label_smoothing": 0.1}
    made = trainer(tmp_path, recipe(loss=NO_TERMS | taught), teacher=Asked())
    loss, x, y, chosen, logits = step(made)
    wanted = 0.7 * soft(logits, Asked()(x, chosen), 2.0) + 0.3 * hard(logits, y, 0.1)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_auxiliary_head_has_its_weight(tmp_path: Path) -> None:
    made = trainer(tmp_path, recipe({"auxiliary_weight": 0.4, "drop_path": 0.0}, NO_TERMS))
    loss, x, y, _, logits = step(made)
    output, auxiliary = made.model(x)
    assert torch.equal(output, logits)  # both from the batch's own statistics
    wanted = hard(logits, y) + 0.4 * hard(auxiliary, y)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_reconstruction_error_has_its_weight(tmp_path: Path) -> None:
    """Eq. 4.23 over all 1-bit convolutions; the scale is the mean of the magnitudes."""
    made = trainer(tmp_path, recipe(loss=NO_TERMS | {"reconstruction_weight": 0.01}))
    loss, _, y, _, logits = step(made)
    error = 0.0
    for _, conv in quant_convs(made.model):
        w = conv.weight.detach()
        error += (w - w.abs().mean((1, 2, 3), keepdim=True) * sign(w)).square().sum().item()
    assert error > 0
    assert loss.item() == pytest.approx(hard(logits, y).item() + 0.01 * error, rel=1e-5)


def test_the_kernel_term_has_its_weight(tmp_path: Path) -> None:
    plain, *_ = step(trainer(tmp_path, recipe(loss=NO_TERMS)))
    once, *_ = step(trainer(tmp_path, recipe(loss=NO_TERMS | {"kernel_weight": 0.001})))
    twice, *_ = step(trainer(tmp_path, recipe(loss=NO_TERMS | {"kernel_weight": 0.002})))
    assert once.item() > plain.item()
    assert (twice - plain).item() == pytest.approx(2 * (once - plain).item(), rel=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_an_update_is_one_step_down_the_clipped_gradient_of_the_global_batch(
    tmp_path: Path, accumulation: int, clip: float
) -> None:
    """A linear network, whose batch can be cut without another outcome; the first step of momentum SGD is plain."""
    settings = recipe(
        loss=NO_TERMS,
        accumulation=accumulation,
        clip=clip,
        ema=0.0,
        stages=[STAGE | {"epochs": 1, "optimiser": "sgd", "learning_rate": 0.5}],
    )
    images, size = tiny.images(16), 16 // accumulation
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    linear: Any = network[1]
    weight = linear.weight.detach().clone().requires_grad_()
    bias = linear.bias.detach().clone().requires_grad_()
    batches = Batches(images, size)
    made = Trainer(
        set_up(tiny.COMPUTE, 0),
        network,
        settings,
        4,
        batches,
        batches,
        0,
        Resume(tmp_path, {}, "code"),
        quiet=True,
    )
    made.run()
    x, y = (torch.cat(parts) for parts in zip(*batches.epoch(0), strict=True))
    hard(x.flatten(1) @ weight.T + bias, y).backward()
    assert weight.grad is not None and bias.grad is not None
    norm = math.sqrt(weight.grad.square().sum() + bias.grad.square().sum())
    assert norm > 0.05
    rate = 0.5 * (min(1.0, clip / norm) if clip else 1.0)
    torch.testing.assert_close(linear.weight, weight - rate * weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(linear.bias, bias - rate * bias.grad, rtol=1e-4, atol=1e-6)


def test_the_rate_falls_by_a_cosine_over_the_updates_of_each_stage(tmp_path: Path) -> None:
    first = STAGE | {"epochs": 3, "learning_rate": 0.01, "final_learning_rate": 0.001}
    history = trainer(tmp_path, recipe(stages=[first, STAGE | {"epochs": 1}])).run().history
    for epoch in range(3):
        progress = (epoch + 3 / 4) / 3  # the last of an epoch's four updates
        wanted = 0.001 + 0.5 * (0.01 - 0.001) * (1 + math.cos(math.pi * progress))
        assert history[epoch]["lr"] == pytest.approx(wanted, rel=1e-6)
    assert history[3]["lr"] == pytest.approx(0.005 * (1 + math.cos(math.pi * 3 / 4)), rel=1e-6)


def test_drop_path_grows_from_nothing_over_all_stages(tmp_path: Path) -> None:
    made, seen = trainer(tmp_path, recipe({"drop_path": 0.2})), []
    inner = made._terms

    def watching(*arguments: Any) -> Any:
        seen.append(made.model.drop_path)
        return inner(*arguments)

    made._terms = watching  # type: ignore[method-assign]
    made.run()
    assert seen[::4] == pytest.approx([0.0, 0.05, 0.1, 0.15])


@pytest.mark.parametrize("vectors", [False, True])
def test_weight_decay_is_on_matrices_and_on_vectors_where_it_is_asked_for(
    tmp_path: Path, vectors: bool
) -> None:
    settings = recipe(stages=[STAGE | {"weight_decay": 0.01, "decay_vectors": vectors}])
    made = trainer(tmp_path, settings)
    decay = {
        id(parameter): group["weight_decay"]
        for group in made._optimiser(settings.stages[0]).param_groups
        for parameter in group["params"]
    }
    assert len(decay) == len(list(made.model.parameters()))
    for parameter in made.model.parameters():
        assert decay[id(parameter)] == (0.01 if parameter.ndim > 1 or vectors else 0.0)
