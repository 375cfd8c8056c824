"""Optimisers whose steps are torch's, up to the rounding of a fused multiply-add."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from search import optimisers

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 3e-2}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.99), "weight_decay": 1e-2}),
    ("AdamW", {"lr": 0.01, "weight_decay": 1e-2}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_and_state_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    found = []
    for kind in (getattr(torch.optim, name), getattr(optimisers, name)):
        generator = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(7, 3, generator=generator)) for _ in range(3)]
        optimiser = kind(parameters, **options)
        for step in range(5):
            for parameter in parameters[: 2 + step % 2]:
                parameter.grad = torch.randn(7, 3, generator=generator)
            if step % 2 == 0:
                parameters[2].grad = None
            optimiser.step()
        found.append((parameters, optimiser.state_dict()))
    (expected, state), (ours, our_state) = found
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert our_state["state"].keys() == state["state"].keys()
    for key, values in state["state"].items():
        torch.testing.assert_close(our_state["state"][key], values, rtol=1e-5, atol=1e-6)


def test_a_state_goes_on() -> None:
    results = []
    for parts in (1, 2):
        parameter = nn.Parameter(torch.ones(3))
        optimiser = optimisers.Adam([parameter], 0.1)
        for step in range(4):
            if parts == 2 and step == 2:
                state = optimiser.state_dict()
                optimiser = optimisers.Adam([parameter], 0.1)
                optimiser.load_state_dict(state)
            parameter.grad = torch.tensor([1.0, -2.0, float(step)])
            optimiser.step()
        results.append(parameter.detach().clone())
    assert torch.equal(*results)


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_clipping_is_that_of_torch(largest: float) -> None:
    found = []
    for clip in (nn.utils.clip_grad_norm_, optimisers.clip_gradients):
        parameters = [
            nn.Parameter(torch.zeros(4)),
            nn.Parameter(torch.zeros(2, 2)),
            nn.Parameter(torch.zeros(1)),
        ]
        for k, parameter in enumerate(parameters[:2]):
            parameter.grad = torch.arange(4.0).view(parameter.shape) - k
        clip(parameters, largest)
        found.append([parameter.grad for parameter in parameters[:2]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "made", [lambda p: optimisers.SGD(p, 0.1, 0.9, nesterov=True), lambda p: optimisers.Adam(p, amsgrad=True)]
)
def test_options_that_it_lacks_are_refused(made: Any) -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimiser = made([parameter])
    parameter.grad = torch.ones(1)
    with pytest.raises(ValueError, match="this"):
        optimiser.step()
