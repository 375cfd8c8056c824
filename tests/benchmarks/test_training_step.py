"""A training step of one sampled architecture: Child, Parent (its real-valued twin), and the Child in plain PyTorch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
from torch import nn

from search.binary import sign
from search.cost import count
from search.genotype import EDGES
from search.network import NetworkConfig
from search.style import OperationStyle
from search.supernet import Architecture, Supernet
from search.training import place
from tests.benchmarks.common import as_in_a_run, shares
from tests.benchmarks.plain import make_plain
from tests.counting import Traffic

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


def training_step(network: Supernet, x: torch.Tensor) -> Callable[[], None]:
    drawn, y = architecture(), torch.arange(BATCH) % 10
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(x, drawn), y).backward()
        optimiser.step()

    return step


def operations_of_a_step(network: Supernet) -> int:
    """Multiplications and additions of a step's convolutions and classifier.

    Forward, gradient in the input and gradient in the weights have the same number of multiply-accumulates;
    the stem's input wants no gradient.
    """
    cost = count(network, (BATCH, 3, 32, 32), lambda supernet, images: supernet(images, architecture()))
    stem = next(layer for layer in cost.layers if layer.name.startswith("stem"))
    return 2 * (3 * cost.macs - stem.macs)


@pytest.mark.parametrize("groups", [1, 8])
def test_plain_and_ours_compute_the_same(groups: int) -> None:
    """Outputs and gradients of one 1-bit convolution agree, so that the times compare like with like.

    Not the whole network's: the plain sign is +-1 only up to rounding, and 1-bit convolutions make many equal
    values, whose order under max pooling the rounding decides.
    """
    style = OperationStyle("paper")
    conv = style.conv(8, 8, 3, activate=True, groups=groups).double()
    x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    found = []
    for network in (conv, make_plain(nn.Sequential(copy.deepcopy(conv)))):
        inputs = x.clone().requires_grad_()
        network.zero_grad()
        output = network(inputs)
        output.square().sum().backward()
        found.append((output.detach(), inputs.grad, next(network.parameters()).grad))
    for ours, plain in zip(*found, strict=True):
        assert ours is not None and plain is not None
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.benchmark(group="training step, C=16, 5 cells, batch 64, 32x32")
@pytest.mark.parametrize("kind", ["parent", "child", "plain"])
def test_training_step(benchmark, kind: str) -> None:
    as_in_a_run()
    network, x = supernet(kind)
    step = training_step(network, x)
    benchmark.extra_info["baseline"] = "test_training_step[parent]"
    benchmark.extra_info["images"] = BATCH
    benchmark.pedantic(step, rounds=4 if kind == "plain" else 8, warmup_rounds=1)
    if kind != "plain":
        with Traffic() as traffic:
            step()
        benchmark.extra_info["bytes"] = traffic.bytes
        benchmark.extra_info["flop"] = operations_of_a_step(network)
        benchmark.extra_info["shares"] = shares(network, step)


@pytest.mark.benchmark(group="sign, 64x16x32x32")
@pytest.mark.parametrize("kind", ["relu", "sign", "where"])
def test_forward_of_sign(benchmark, kind: str) -> None:
    as_in_a_run()
    x = torch.randn(64, 16, 32, 32)
    operations = {"relu": torch.relu, "sign": sign, "where": lambda x: torch.where(x >= 0, 1.0, -1.0)}
    benchmark.extra_info["baseline"] = "test_forward_of_sign[relu]"
    benchmark.pedantic(operations[kind], (x,), rounds=200, warmup_rounds=5)
