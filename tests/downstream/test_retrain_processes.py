"""Two real processes train as one does; a training that was killed goes on bit for bit, alone and in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from search.files import read_json
from tests import slurm
from tests.downstream import retrain_worker

WORKER = ["-m", "tests.downstream.retrain_worker"]
ROOT = Path(__file__).parents[2]


class Launcher(NamedTuple):
    """How a worker is started: the words before its command, and its environment."""

    command: list[str]
    environment: dict[str, str]


ALONE = Launcher([sys.executable], dict(os.environ))
TORCHRUN = Launcher(
    [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"], dict(os.environ)
)
SRUN = ["srun", "--nodes=2", "--ntasks-per-node=1", sys.executable]


@pytest.fixture(scope="module", params=["torchrun", "srun"])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts two processes: on one machine, or on two nodes of a Slurm cluster."""
    if request.param == "torchrun":
        yield TORCHRUN
        return
    try:
        with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
            yield Launcher(SRUN, environment)
    except slurm.NoSlurm as reason:
        pytest.skip(str(reason))


def launch(launcher: Launcher, folder: Path, mode: str) -> subprocess.CompletedProcess[str]:
    command = [*launcher.command, *WORKER, str(folder), mode]
    environment = launcher.environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)


def killed(launcher: Launcher, folder: Path) -> None:
    """A training that has ended like after ``kill -9``, with one saved state."""
    assert launch(launcher, folder, "die").returncode != 0
    assert len(list(folder.rglob("state.pt"))) == 1
    assert not list(folder.glob("*.json"))


@pytest.fixture(scope="module")
def together(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes found, one of the trainings being interrupted."""
    folder = tmp_path_factory.mktemp("together")
    killed(launcher, folder)
    ended = launch(launcher, folder, "go-on")
    assert ended.returncode == 0, ended.stderr
    return read_json(folder / "2.json")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process found."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: retrain_worker.train(name, folder) for name in retrain_worker.CASES}


def given(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row; a term that the recipe leaves out has none."""
    return {key: value for key, value in row.items() if value is not None}


@pytest.mark.parametrize("name", retrain_worker.CASES)
def test_two_processes_have_the_loss_curve_of_one(
    name: str, together: dict[str, Any], alone: dict[str, dict[str, Any]]
) -> None:
    """To the rounding of float64, over all steps of the training; the last batch of test images does not halve."""
    one, both = alone[name], together[name]
    assert len(both["history"]) == len(one["history"])
    for here, there in zip(one["history"], both["history"], strict=True):
        assert given(there) == pytest.approx(given(here), rel=1e-6) and there.keys() == here.keys()
        assert there["accuracy"] == here["accuracy"] and there["images_seen"] == here["images_seen"]
    assert both["final"] == pytest.approx(one["final"], rel=1e-6)
    assert both["final"][2] == 41


def test_two_processes_ask_a_teacher_as_one_does(together: dict[str, Any], tmp_path: Path) -> None:
    """Also about the last picture, of which the other process has none."""
    for here, there in zip(retrain_worker.asked(tmp_path), together["asked"], strict=True):
        assert there == pytest.approx(here, rel=1e-3, abs=1e-4) and any(there)


def test_two_processes_go_on_bit_for_bit(together: dict[str, Any]) -> None:
    assert together["resumed"] == together[retrain_worker.INTERRUPTED]


def test_one_process_goes_on_bit_for_bit(alone: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    killed(ALONE, tmp_path)
    name = retrain_worker.INTERRUPTED
    assert retrain_worker.train(name, tmp_path / "cut") == alone[name]
