"""The limits of the machine on the same threads: bytes and operations a second."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.common import as_in_a_run

SIDE = 1536


@pytest.mark.benchmark(group="limits of the machine")
@pytest.mark.parametrize("mebibytes", [4, 256])
def test_copy(benchmark, mebibytes: int) -> None:
    """One tensor to another: the size of a map of the training step above, and one that no cache holds."""
    as_in_a_run()
    source = torch.ones(mebibytes * 2**20 // 4)
    target = torch.empty_like(source)
    benchmark.extra_info["bytes"] = 2 * source.nbytes
    benchmark.pedantic(
        target.copy_, (source,), rounds=20, warmup_rounds=2, iterations=max(1, 64 // mebibytes)
    )


@pytest.mark.benchmark(group="limits of the machine")
def test_matrix_product(benchmark) -> None:
    """float32, large enough to be limited by arithmetic alone."""
    as_in_a_run()
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)
    benchmark.extra_info["flop"] = 2 * SIDE**3
    benchmark.pedantic(lambda: torch.mm(a, b, out=out), rounds=10, warmup_rounds=2)
