"""Two processes under torchrun against one: every method, batch norm, draws and resume, in float64.

Float64, so that the tolerance can be far below any error of method: what differs is the order of sums, some 1e-14
here. In float32 real-valued networks part by 1e-7 to 1e-6 in an epoch, and training amplifies that; 1-bit networks
part by more, since whichever side of a sign's threshold rounding puts a tie on, the output jumps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.kernels import modules
from search.network import drop
from search.processes import gather_rows, mean_over_processes, sum_over_processes, with_global_norms
from search.training import set_up
from tests.search import processes_worker, tiny

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes wrote, by rank; all tests read the same launch."""
    folder = tmp_path_factory.mktemp("processes")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "tests.search.processes_worker", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(found: Any, expected: Any, place: str, tolerance: float) -> None:
    """Equal but for floating-point numbers, which may differ by ``tolerance``, relative above 1."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected:
            assert_same(found[key], expected[key], f"{place} {key}", tolerance)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{place} {index}", tolerance)
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(
            found, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{place}: {text}"
        )
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), place
    else:
        assert found == expected, place


@pytest.fixture
def layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process computes as several do: module by module, since norms over processes have no whole-layer form.

    The whole-layer form decides ties of sign exactly, where the sums of modules round: it may find another network.
    """
    monkeypatch.setattr(modules, "_free", lambda *layer: False)
    monkeypatch.setattr(modules, "pool", lambda *layer: None)


@pytest.mark.usefixtures("layer_by_layer")
@pytest.mark.parametrize("method", processes_worker.STEPS)
def test_two_processes_search_as_one_does(method: str, ranks: list[dict[str, Any]], float64: None) -> None:
    """The same draws, losses, accuracies, weights, alphas and, where the search is finished, genotype."""
    expected = processes_worker.search(set_up(tiny.COMPUTE, 0), method)
    for found in ranks:
        assert_same(found["searches"][method], expected, method, TOLERANCE)


def test_both_processes_hold_the_same_bits(ranks: list[dict[str, Any]]) -> None:
    assert_same(ranks[0]["searches"], ranks[1]["searches"], "ranks", 0.0)
    assert [found["world"] for found in ranks] == [2, 2]


@pytest.mark.parametrize("slices", processes_worker.SLICES)
@pytest.mark.parametrize("kind", processes_worker.NORMS)
def test_global_norm_is_batch_norm_of_the_whole_batch(
    kind: str, slices: str, ranks: list[dict[str, Any]]
) -> None:
    """Output, gradients once and twice, forward mode, running statistics and evaluation."""
    total = sum(processes_worker.SLICES[slices])
    norm = nn.BatchNorm2d(3, **processes_worker.NORMS[kind]).double()  # type: ignore[arg-type]
    expected = processes_worker.norm_derivatives(norm, range(total), total)
    first, second = (found["norms"][f"{kind} {slices}"] for found in ranks)
    buffers = dict(norm.named_buffers())
    for name, value in expected.items():
        if name in buffers:
            assert_same([first[name], second[name]], [value, value], name, TOLERANCE)
        elif name.endswith(("_weight", "_bias")):
            assert_same(first[name] + second[name], value, name, TOLERANCE)
        else:
            assert_same(torch.cat([first[name], second[name]]), value, name, TOLERANCE)


def test_rows_of_all_processes(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["rows"].tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_drop_path_draws_for_the_whole_batch(ranks: list[dict[str, Any]], float64: None) -> None:
    torch.manual_seed(0)
    expected = drop(torch.ones(16, 1, 1, 1), 0.5)
    assert torch.equal(torch.cat([found["drop"] for found in ranks]), expected)
    assert 0 < expected.count_nonzero() < 16


def test_what_one_process_saved_all_load(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["resume"]["before"] is None
        assert found["resume"]["after"] == {"value": 7}


def test_a_state_that_only_some_processes_see_is_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert "seen by 1 of 2 processes" in found["resume"]["told"]


def test_one_process_computes_as_if_there_were_no_others() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    norm = network[1]
    assert with_global_norms(network)[1] is norm
    x = torch.randn(3)
    assert sum_over_processes(x) is x
    assert mean_over_processes(x) is x
    assert torch.equal(gather_rows(x), x[None])
