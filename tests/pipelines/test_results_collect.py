"""Collecting run records: what is copied, what is refused and how it says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect import add, collect, expected
from pipelines.results.checks import SIZE_LIMIT
from pipelines.results.records import read_records
from pipelines.results.run import settings_hash
from search.errors import InputError
from search.files import read_json, write_json
from tests.pipelines.results_records import genotype, write_retrain, write_run, write_search


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    """Two runs and their network."""
    write_search(tmp_path / "runs", "cp_nas", 0)
    write_retrain(tmp_path / "runs", "cp_nas", 0, "1bit", "cifar10")
    return tmp_path / "runs"


ROOT = Path(__file__).parents[2]
RETRAIN = "retrain/cifar10/cp_nas-s0-1bit-s0"


def test_copies_small_files_unchanged_and_no_weights(runs: Path, tmp_path: Path) -> None:
    """Every JSON and CSV file byte for byte; weights and unfinished folders stay behind."""
    write_json(runs / "search" / ".cp_nas-s1.tmp" / "run.json", {"half": "written"})
    assert collect(runs, tmp_path / "records", "quick") == 2
    copied = {
        path.relative_to(tmp_path / "records/quick")
        for path in (tmp_path / "records").rglob("*")
        if path.is_file()
    }
    expected = {
        path.relative_to(runs)
        for path in runs.rglob("*")
        if path.suffix in (".json", ".csv") and ".cp_nas-s1.tmp" not in path.parts
    }
    assert copied == expected
    for path in expected:
        assert (runs / path).read_bytes() == (tmp_path / "records/quick" / path).read_bytes()


def test_exported_detections_stay_beside_the_run(runs: Path, tmp_path: Path) -> None:
    """However large: every box of a test set is no part of a record."""
    folder = next(path.parent for path in sorted(runs.rglob("run.json")))
    (folder / "detections.json").write_text("[" + " " * 400_000 + "]")
    collect(runs, tmp_path / "records", "quick")
    assert list((tmp_path / "records").rglob("detections.json")) == []
    assert list((tmp_path / "records").rglob("run.json"))


def test_collecting_again_drops_runs_that_are_gone(runs: Path, tmp_path: Path) -> None:
    """The active profile's records are those of runs/, not of runs/ as it once was."""
    write_retrain(runs, "cp_nas", 0, "real", "cifar10")
    collect(runs, tmp_path / "records", "quick")
    for path in (runs / "retrain/cifar10/cp_nas-s0-real-s0").iterdir():
        path.unlink()
    assert collect(runs, tmp_path / "records", "quick") == 2
    assert not (tmp_path / "records/quick/retrain/cifar10/cp_nas-s0-real-s0").exists()


def _change(path: Path, **values: Any) -> None:
    write_json(path, {**read_json(path), **values})


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("run.json", {"schema": 3}, "schema 3 is not a version that this code reads"),
        ("run.json", {"stage": "train"}, "stage is 'train'"),
        ("run.json", {"paper_scale": "yes"}, "paper_scale is 'yes'"),
        ("run.json", {"precision": "2bit"}, "precision is '2bit'"),
        ("run.json", {"key": "elsewhere"}, "key 'elsewhere' is not the folder's name"),
        ("run.json", {"dataset": {"name": "cifar10"}}, "dataset.stand_in is missing"),
        ("run.json", {"seed": True}, "seed is True"),
        ("run.json", {"genotype_hash": "00" * 32}, "the run states 000000000000"),
        ("metrics.json", {"accuracy": 71.3}, "accuracy is 71.3"),
        ("metrics.json", {"accuracy": "high"}, "accuracy is 'high'"),
    ],
)
def test_refuses_a_wrong_record(
    runs: Path, tmp_path: Path, file: str, values: dict[str, Any], words: str
) -> None:
    """Each wrong value is named with its file, and nothing is copied."""
    _change(runs / RETRAIN / file, **values)
    with pytest.raises(InputError, match=words.replace("(", r"\(")) as error:
        collect(runs, tmp_path / "records", "quick")
    assert RETRAIN in str(error.value)
    assert not (tmp_path / "records/quick").exists()


def test_refuses_a_missing_metric_file_and_too_large_file(runs: Path, tmp_path: Path) -> None:
    """A run without its numbers is none; a record fits into git."""
    values = read_json(runs / RETRAIN / "metrics.json")
    write_json(
        runs / RETRAIN / "metrics.json", {key: value for key, value in values.items() if key != "accuracy"}
    )
    with pytest.raises(InputError, match="the metric 'accuracy' is missing"):
        collect(runs, tmp_path / "records", "quick")
    (runs / RETRAIN / "metrics.json").unlink()
    with pytest.raises(InputError, match="no such file"):
        collect(runs, tmp_path / "records", "quick")
    (runs / RETRAIN / "history.csv").write_bytes(b"x" * (SIZE_LIMIT + 1))
    with pytest.raises(InputError, match=f"{SIZE_LIMIT + 1} bytes"):
        collect(runs, tmp_path / "records", "quick")


def test_runs_of_another_profile_stay_behind(runs: Path, tmp_path: Path) -> None:
    """runs/ may still hold what another profile left there; only what the active one names is its result."""
    write_retrain(runs, "random", 7, "1bit", "cifar10")
    for name in ("cp_nas-s0", "random-s7"):
        write_run(
            runs, f"cost/{name}/retrain-cifar10-1bit", network=name, method="x", task="cost", metrics={}
        )
    wanted = {"search/cp_nas-s0", "cost/cp_nas-s0", RETRAIN}
    assert collect(runs, tmp_path / "records", "quick", wanted) == 3
    assert not (tmp_path / "records/quick/retrain/cifar10/random-s7-1bit-s0").exists()


def test_expected_follows_the_settings() -> None:
    """Every folder that the graph's matrices make for a profile, and no other."""
    from pipelines import params, profile

    values = profile.values_of("ci")
    values["search"] |= {"methods": ["cp_nas"], "seeds": [3]}
    none = {"networks": [], "precisions": ["1bit"], "seeds": [0]}
    task = {"networks": ["cp_nas-s3"], "precisions": ["1bit", "real"], "seeds": [0, 1]}
    values["runs"] = {"adopted": ["bi-real-18"], "cost": ["cp_nas-s3", "bi-real-18"], "cifar10": task}
    values["runs"] |= dict.fromkeys(("imagenet", "detection", "reid"), none)
    values["runs"]["reid_zoo"] = {"networks": ["osnet_x0_25"], "seeds": [5]}
    keys = [f"cp_nas-s3-{precision}-s{seed}" for precision in ("1bit", "real") for seed in (0, 1)]
    assert expected(params.check(values, "params.yaml")) == {
        "search/cp_nas-s3",
        "networks/cp_nas-s3",
        "networks/bi-real-18",
        "cost/cp_nas-s3",
        "cost/bi-real-18",
        *(f"{stage}/cifar10/{key}" for stage in ("retrain", "evaluate") for key in keys),
        "reid/osnet_x0_25-real-s5",
    }


def test_nothing_finished(tmp_path: Path) -> None:
    """No folder, an empty folder: two different lines."""
    with pytest.raises(InputError, match="dvc repro"):
        collect(tmp_path / "runs", tmp_path / "records", "quick")
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="no finished run"):
        collect(tmp_path / "runs", tmp_path / "records", "quick")


def test_add_keeps_what_is_there(runs: Path, tmp_path: Path) -> None:
    """Added records are idempotent, never overwrite another result, and never enter the active profile."""
    records = tmp_path / "records"
    assert add(runs, "paper-gpu", "quick", records) == 2
    assert add(runs, "paper-gpu", "quick", records) == 2
    _change(runs / RETRAIN / "metrics.json", accuracy=0.9)
    with pytest.raises(InputError, match="a different record"):
        add(runs, "paper-gpu", "quick", records)
    assert read_json(records / "paper-gpu" / RETRAIN / "metrics.json")["accuracy"] != 0.9
    with pytest.raises(InputError, match="the active profile"):
        add(runs, "quick", "quick", records)
    with pytest.raises(InputError, match="cannot name a campaign"):
        add(runs, "../quick", "quick", records)
    with pytest.raises(InputError, match="give the runs/ folder"):
        add(runs / "retrain", "paper-gpu2", "quick", records)


def test_records_come_in_a_fixed_order_and_know_their_seeds(runs: Path, tmp_path: Path) -> None:
    """Profile first, then path; the search seed of a retraining is its network's."""
    add(runs, "b", "quick", tmp_path / "records")
    add(runs, "a", "quick", tmp_path / "records")
    records = read_records(tmp_path / "records")
    assert [(record.campaign, record.stage) for record in records] == [
        ("a", "retrain"),
        ("a", "search"),
        ("b", "retrain"),
        ("b", "search"),
    ]
    assert [record.search_seed for record in records] == [0, 0, 0, 0]
    with pytest.raises(InputError, match="no run records"):
        read_records(tmp_path / "nowhere")


def test_settings_hash_ignores_seeds_and_asked_keys_only() -> None:
    """Two seeds are one experiment, two learning rates are not."""
    one = {"retrain": {"lr": 0.1, "seed": 0, "workers": 2}}
    assert settings_hash(one) == settings_hash({"retrain": {"lr": 0.1, "seed": 7, "workers": 0}})
    assert settings_hash(one) != settings_hash({"retrain": {"lr": 0.2, "seed": 0}})
    assert settings_hash(one, ("retrain.lr",)) == settings_hash({"retrain": {"lr": 0.2}}, ("retrain.lr",))


def test_a_genotype_of_another_run_is_refused(runs: Path, tmp_path: Path) -> None:
    """genotype.json must be the architecture that run.json names."""
    genotype("random", 5).save(runs / RETRAIN / "genotype.json")
    with pytest.raises(InputError, match="its hash is"):
        collect(runs, tmp_path / "records", "quick")


def test_cost_runs_have_no_data_set(tmp_path: Path) -> None:
    """A cost is counted, so its record names no data set; it must hold the cost."""
    folder = write_run(
        tmp_path / "runs", "cost/bi-real-18", network="bi-real-18", method=None, task="cost", metrics={}
    )
    assert collect(tmp_path / "runs", tmp_path / "records", "quick") == 1
    (folder / "cost.json").unlink()
    with pytest.raises(InputError, match="cost.json: no such file"):
        collect(tmp_path / "runs", tmp_path / "records", "quick")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_commands_fail_in_one_line(tmp_path: Path) -> None:
    """Nothing to read: exit code 2, one line on stderr, no traceback, nothing written."""
    for arguments in (("pipelines.tables",), ("pipelines.collect",)):
        found = _run(tmp_path, *arguments)
        assert found.returncode == 2
        assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_add_then_tables_from_the_command_line(runs: Path, tmp_path: Path) -> None:
    """The two commands that a user of another machine's runs types."""
    shutil.copy(ROOT / "pipelines/profiles/quick.yaml", tmp_path / "params.yaml")
    found = _run(tmp_path, "pipelines.collect", "add", "runs", "--campaign", "gpu")
    assert (found.returncode, found.stdout) == (0, "2 run records in results/records/gpu\n")
    assert _run(tmp_path, "pipelines.tables").returncode == 0
    assert "gpu" in (tmp_path / "results/classification.md").read_text()
