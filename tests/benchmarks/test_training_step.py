"""A training step of one sampled architecture: Child, Parent, and the Child in plain PyTorch."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from search.genotype import EDGES
from search.network import NetworkConfig
from search.operations import OperationStyle
from search.supernet import Architecture, Supernet
from search.training import place
from tests.benchmarks.plain import make_plain

BATCH = 64


def architecture() -> Architecture:
    """A fixed draw that uses every operation but ``none`` on the 14 edges of a cell."""
    generator = random.Random(0)
    cells = [[1 + index % 7 for index in range(len(EDGES))] for _ in range(2)]
    for cell in cells:
        generator.shuffle(cell)
    return Architecture(tuple(cells[0]), tuple(cells[1]))


def supernet(kind: str) -> tuple[Supernet, torch.Tensor]:
    torch.manual_seed(0)
    network = Supernet(NetworkConfig(16, 5, 10, "cifar", OperationStyle("paper", binary=kind != "parent")))
    x = torch.randn(BATCH, 3, 32, 32)
    if kind == "plain":
        return make_plain(network), x  # type: ignore[return-value]
    return place(network, torch.device("cpu")), x.contiguous(memory_format=torch.channels_last)


def test_plain_and_ours_give_the_same_step() -> None:
    """What is compared computes the same (in float64, where rounding flips no sign): all gradients agree."""
    drawn, y = architecture(), torch.arange(BATCH) % 10
    gradients = []
    for kind in ("child", "plain"):
        network, x = supernet(kind)
        nn.functional.cross_entropy(network.double()(x.double(), drawn), y).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-6, atol=1e-9), name


@pytest.mark.benchmark(group="training step, C=16, 5 cells, batch 64, 32x32")
@pytest.mark.parametrize("kind", ["parent", "child", "plain"])
def test_training_step(benchmark, kind: str) -> None:
    network, x = supernet(kind)
    drawn, y = architecture(), torch.arange(BATCH) % 10
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(x, drawn), y).backward()
        optimiser.step()

    benchmark.extra_info["baseline"] = "test_training_step[parent]"
    benchmark.extra_info["images"] = BATCH
    benchmark.pedantic(step, rounds=8, warmup_rounds=2)


@pytest.mark.benchmark(group="sign, 64x16x32x32")
@pytest.mark.parametrize("kind", ["relu", "sign", "where"])
def test_forward_of_sign(benchmark, kind: str) -> None:
    from search.binary import sign

    x = torch.randn(64, 16, 32, 32)
    operations = {"relu": torch.relu, "sign": sign, "where": lambda x: torch.where(x >= 0, 1.0, -1.0)}
    benchmark.extra_info["baseline"] = "test_forward_of_sign[relu]"
    benchmark.pedantic(operations[kind], (x,), rounds=200, warmup_rounds=5)
