"""The Child's step in alpha with each curvature: time and peak memory, beside a plain step of the weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from search.curvature import straight_through_tangents
from search.network import NetworkConfig
from search.strategies.differentiable import ArchitectureParameters, batch_statistics
from search.style import OperationStyle
from search.supernet import Supernet
from search.tangent import child_gradient, child_objective
from search.training import place
from tests.benchmarks.common import as_in_a_run
from tests.counting import PeakBytes

BATCH, CLASSES, CHANNELS, CELLS = 16, 10, 8, 3


def alpha_step(kind: str) -> Callable[[], object]:
    """One step on a mixed 1-bit supernet in training mode: ``plain`` is the gradient of G in the weights."""
    torch.manual_seed(0)
    network = place(
        Supernet(NetworkConfig(CHANNELS, CELLS, CLASSES, "cifar", OperationStyle("paper"))),
        torch.device("cpu"),
    )
    architecture = ArchitectureParameters(0, 0.1)
    x = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    parent, target = torch.randn(2, 14, 8), torch.softmax(torch.randn(BATCH, CLASSES), -1)

    def outputs(alpha: Tensor) -> Tensor:
        return network(x, architecture.mixture(alpha))

    def objective(logits: Tensor) -> Tensor:
        return child_objective(logits, target)

    def plain() -> object:
        return torch.autograd.grad(objective(outputs(architecture.alpha)), list(network.parameters()))

    def step() -> object:
        with straight_through_tangents(network), batch_statistics(network):
            return child_gradient(
                outputs, objective, architecture.alpha, parent, 0.1, "relative", "f_norm", kind
            )  # type: ignore[arg-type]

    return plain if kind == "plain" else step


@pytest.mark.benchmark(group="step in alpha, mixed Child, C=8, 3 cells, batch 16, 32x32")
@pytest.mark.parametrize("kind", ["plain", "exact", "ggn", "outer"])
def test_alpha_step(benchmark, kind: str) -> None:
    as_in_a_run()
    step = alpha_step(kind)
    benchmark.extra_info["baseline"] = f"test_alpha_step[{'exact' if kind == 'ggn' else 'plain'}]"
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    with PeakBytes() as memory:
        step()
    benchmark.extra_info["peak_bytes"] = memory.peak
