"""Two real processes train as one does; a training that was killed goes on bit for bit, alone and in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.files import read_json
from tests.downstream import retrain_worker

WORKER = "tests.downstream.retrain_worker"
ROOT = Path(__file__).parents[2]


def launch(folder: Path, mode: str, processes: int) -> subprocess.CompletedProcess[str]:
    starter = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [sys.executable, "-m", *(starter if processes > 1 else []), WORKER, str(folder), mode]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)


def killed(folder: Path, processes: int) -> None:
    """A training that has ended like after ``kill -9``, with one saved state."""
    assert launch(folder, "die", processes).returncode != 0
    assert len(list(folder.rglob("state.pt"))) == 1
    assert not list(folder.glob("*.json"))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes found, one of the trainings being interrupted."""
    folder = tmp_path_factory.mktemp("together")
    killed(folder, 2)
    ended = launch(folder, "go-on", 2)
    assert ended.returncode == 0, ended.stderr
    return read_json(folder / "2.json")


@pytest.mark.parametrize("name", retrain_worker.CASES)
def test_two_processes_have_the_loss_curve_of_one(
    name: str, together: dict[str, Any], tmp_path: Path
) -> None:
    """To the rounding of float64, over all steps of the training; the last batch of test images does not halve."""
    alone, both = retrain_worker.train(name, tmp_path), together[name]
    assert len(both["history"]) == len(alone["history"])
    for here, there in zip(alone["history"], both["history"], strict=True):
        assert there == pytest.approx(here, rel=1e-6)
        assert there["accuracy"] == here["accuracy"] and there["images_seen"] == here["images_seen"]
    assert both["final"] == pytest.approx(alone["final"], rel=1e-6)
    assert both["final"][2] == 41


def test_two_processes_go_on_bit_for_bit(together: dict[str, Any]) -> None:
    assert together["resumed"] == together[retrain_worker.INTERRUPTED]


def test_one_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    killed(tmp_path, 1)
    name = retrain_worker.INTERRUPTED
    resumed = retrain_worker.train(name, tmp_path / "cut")
    assert resumed == retrain_worker.train(name, tmp_path / "whole")
