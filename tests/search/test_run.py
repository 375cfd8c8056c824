from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.errors import InputError
from search.methods import METHODS
from search.run import SearchRun, run_search
from search.strategies.random import random_genotype
from search.training import set_up
from tests.search import tiny

ALL = sorted(METHODS)


def search(method: str, seed: int, root: Path) -> SearchRun:
    fabric = set_up(tiny.COMPUTE, seed)
    return run_search(
        fabric, method, tiny.settings(), seed, tiny.images(), resume_root=root, data_hash="tiny", quiet=True
    )


def outcome(run: SearchRun) -> tuple:
    return (
        run.history,
        run.result.genotype,
        run.result.validation_accuracy,
        run.result.tables,
        vars(run.budget),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SearchRun]:
    return {method: search(method, 0, tmp_path_factory.mktemp("first")) for method in ALL}


@pytest.mark.parametrize("method", ALL)
def test_one_seed_gives_one_history_bit_for_bit(
    method: str, finished: dict[str, SearchRun], tmp_path: Path
) -> None:
    again = search(method, 0, tmp_path)
    assert outcome(again) == outcome(finished[method])


@pytest.mark.parametrize("method", ALL)
def test_another_seed_gives_another_history(
    method: str, finished: dict[str, SearchRun], tmp_path: Path
) -> None:
    assert search(method, 1, tmp_path).history != finished[method].history


def test_a_search_that_diverges_ends_with_its_reason(tmp_path: Path) -> None:
    settings = tiny.settings()
    wild = settings.space.optimiser.model_copy(update={"name": "sgd", "learning_rate": 1e30, "clip": 0.0})
    settings = settings.model_copy(
        update={"space": settings.space.model_copy(update={"optimiser": wild, "binary": False})}
    )
    with pytest.raises(InputError, match="search.space.optimiser: the search diverged in step 0"):
        run_search(
            set_up(tiny.COMPUTE, 0), "random", settings, 0, tiny.images(), resume_root=tmp_path, data_hash="",
            quiet=True,
        )  # fmt: skip


CHILD = """
import sys
from pathlib import Path
from tests.search.test_run import search
import search.run as driver

steps = int(sys.argv[3])
real = driver.Resume.save
count = 0

def save(self, state):
    global count
    real(self, state)
    count += 1
    if count == steps:
        print("saved", flush=True)
        sys.stdin.read()  # killed here, with no chance to clean up

driver.Resume.save = save
search(sys.argv[1], 0, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("method", ALL)
def test_killed_and_started_again_is_the_uninterrupted_run(
    method: str, finished: dict[str, SearchRun], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, method, str(tmp_path), "2"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "saved\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = search(method, 0, tmp_path)
    assert resumed.resumed
    assert outcome(resumed) == outcome(finished[method])


def test_state_of_other_settings_is_never_taken(finished: dict[str, SearchRun], tmp_path: Path) -> None:
    first = search("random", 0, tmp_path)
    assert first.resume.path.exists()
    other = search("random", 1, tmp_path)
    assert not other.resumed


def test_a_variant_has_its_own_settings_space_and_state(tmp_path: Path) -> None:
    """Its genotype bears its name; the base form's saved state, and one of another space, is never taken."""
    own = tiny.METHODS["pc_darts"] | {"epochs": 1, "warm_up": 0}
    changed = own | {"method": "pc_darts", "space": {"binary": False}}
    runs = {}
    for name, entries in (
        ("pc_darts", {"pc_darts": own}),
        ("pc_darts_real", {"pc_darts_real": changed}),
        ("pc_darts_real", {"pc_darts_real": changed | {"space": {"binary": False, "edges": "all"}}}),
    ):
        settings = tiny.settings(**entries)
        run = run_search(
            set_up(tiny.COMPUTE, 0),
            name,
            settings,
            0,
            tiny.images(),
            resume_root=tmp_path,
            data_hash="x",
            quiet=True,
        )
        assert not run.resumed
        assert run.result.genotype.name == f"{name}-s0"
        runs[name, settings.space_of(name).edges] = run
    binary, real, every = runs.values()
    # The edges that are kept change what the alphas would give, never the alphas.
    accuracies = [[row["accuracy_child"] for row in run.history] for run in (binary, real, every)]
    losses = [[row["loss_child"] for row in run.history] for run in (binary, real, every)]
    assert accuracies[1] == accuracies[2] and losses[0] != losses[1] == losses[2]
    assert [len(node) for node in real.result.genotype.normal] == [2, 2, 2, 2]
    assert [len(node) for node in every.result.genotype.normal] == [2, 3, 4, 5]


def test_unknown_method_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'cp_nas'"):
        search("cpnas", 0, tmp_path)


def test_random_genotypes_are_uniform_and_valid() -> None:
    drawn = [random_genotype(0, index) for index in range(300)]
    assert len({genotype.hash for genotype in drawn}) == 300
    operations = [edge.operation for genotype in drawn for node in genotype.normal for edge in node]
    assert "none" not in operations
    counts = {name: operations.count(name) / len(operations) for name in set(operations)}
    assert len(counts) == 7
    assert all(abs(share - 1 / 7) < 0.03 for share in counts.values())
    assert all(len({edge.source for edge in node}) == 2 for genotype in drawn for node in genotype.reduce)


def test_random_search_takes_the_best_by_validation(finished: dict[str, SearchRun]) -> None:
    result = finished["random"].result
    table = result.tables["architectures.csv"]
    best = max(row["accuracy"] for row in table)
    equals = [row["genotype"] for row in table if row["accuracy"] == best]
    assert len(table) == 3
    assert result.validation_accuracy == best
    assert result.genotype.hash in equals
    assert result.metrics["tie_share"] == float(len(equals) > 1)
