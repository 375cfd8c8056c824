from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from downstream.classification.shares import DATA, gradient_shares
from search.binary import QuantConv2d
from tests.downstream.test_classification import recipe, trainer
from tests.downstream.test_trainer_arithmetic import NO_TERMS


def test_shares_by_hand() -> None:
    """Gradients (3, 4) of the data and (0, 1) and (6, 8) of two terms; one that reaches nothing has no share."""
    a, b = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))
    terms = {
        DATA: 3 * a + 4 * b,
        "one": 0 * a + b,
        "two": 6 * a + 8 * b,
        "only_b": 2 * b,
        "none": torch.tensor(1.0),
    }
    found = gradient_shares(terms, [a, b])
    assert found == pytest.approx({"one": 0.2, "two": 2.0, "only_b": 0.5})


def test_history_says_what_each_term_weighs_and_how_many_signs_changed(tmp_path: Path) -> None:
    loss = NO_TERMS | {"kernel_weight": 0.1, "class_mean_weight": 0.5, "reconstruction_weight": 0.001}
    rows = trainer(tmp_path, recipe(loss=loss)).run().history
    first, last = rows[0], rows[-1]
    assert first["kernel_share"] is None and first["sign_flip_share"] is None  # weights are real in stage 1
    assert first["sign_flips"] == 0
    for row in rows:
        assert 0 < row["class_mean_share"] < 100
    assert last["kernel_share"] > 0 and last["reconstruction_share"] > 0
    assert 0 < last["sign_flip_share"] < 1 and last["sign_flips"] > 0


def test_a_term_twice_as_heavy_has_twice_the_share(tmp_path: Path) -> None:
    shares = []
    for weight in (0.01, 0.02):
        made = trainer(tmp_path, recipe(loss=NO_TERMS | {"kernel_weight": weight}))
        x, y = next(made.train_batches.epoch(0))
        terms, _ = made._terms(x, y, next(made.train_batches.indices(0)))
        shares.append(gradient_shares(terms, list(made.model.parameters()))["kernel"])
        conv = next(module for module in made.model.modules() if isinstance(module, QuantConv2d))
        assert conv.weight.grad is None  # measuring leaves no trace
    assert shares[1] == pytest.approx(2 * shares[0], rel=1e-4)
