"""The typed run record: old versions are lifted by one migration, anything else is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect import add
from pipelines.results.checks import check_network, read_run
from pipelines.results.metrics import METRICS, Metric, Unit
from pipelines.results.reading import SCHEMA
from pipelines.results.run import STAGES, Run, settings_hash
from search.errors import InputError
from search.files import read_json, write_json
from search.strategies.base import SearchResult
from search.versions import upgrade
from tests.pipelines.results_records import genotype, in_memory, write_retrain, write_search

GOLDEN = Path(__file__).parents[1] / "golden/records"
"""One record of each kind as version 1 wrote it, out of results/records of commit f8889f3."""
RETRAIN = "retrain/cifar10/cp_nas-s0-1bit-s0"
KINDS = {
    "search/random-s0": ("random", "random", "paper", 0, "e8ba3a21"),
    "cost/cp_nas-s0/retrain-cifar10-1bit": ("cp_nas", "cp_nas", "paper", 0, ""),
    RETRAIN: ("cp_nas", "cp_nas", "paper", 0, ""),
    "evaluate/cifar10/cp_nas-s0-1bit-s0": ("cp_nas", "cp_nas", "paper", 0, ""),
    "detect/resnet-18-real-s0": (None, None, None, None, ""),
    "reid/cp_nas-s0-1bit-s0": ("cp_nas", "cp_nas", "paper", 0, ""),
    "reid/osnet_x0_25-real-s0": (None, None, None, None, ""),
}


def test_there_is_a_record_of_each_kind() -> None:
    assert {place.split("/")[0] for place in KINDS} == set(STAGES)
    found = {path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("run.json")}
    assert found == set(KINDS)


@pytest.mark.parametrize("place", KINDS)
def test_version_1_is_read(place: str) -> None:
    """Method, variant (which version 1 wrote in searches alone), form, search seed; nothing is lost on the way."""
    run, written = read_run(GOLDEN / place, campaign="old"), read_json(GOLDEN / place / "run.json")
    method, variant, form, seed, _ = KINDS[place]
    assert written["schema"] == 1 and run.schema_ == SCHEMA > 1
    assert (run.method, run.variant, run.form, run.search_seed) == (method, variant, form, seed)
    assert run.recorded["run"] == written and run.metrics == read_json(GOLDEN / place / "metrics.json")
    assert type(run).__subclasses__() == [] and run.stage == place.split("/")[0]


@pytest.mark.parametrize("place", KINDS)
def test_what_is_written_today_is_read_as_the_same(place: str, tmp_path: Path) -> None:
    """An old record written anew, in the newest version, is the same run."""
    run = read_run(GOLDEN / place)
    for name, content in run.files().items():
        write_json(tmp_path / place / f"{name}.json", content)
    again = read_run(tmp_path / place)
    assert read_json(tmp_path / place / "run.json")["schema"] == SCHEMA
    assert again.model_dump(exclude={"recorded"}) == run.model_dump(exclude={"recorded"})
    assert again.settings == run.settings and again.files() == run.files()


def test_random_search_has_no_child() -> None:
    """Version 1 wrote its drawn networks into columns named after one."""
    run = read_run(GOLDEN / "search/random-s0")
    assert "accuracy_child" in run.table("history.csv")[0]
    assert {"accuracy", "loss"} <= set(run.history[0]) and not any("child" in key for key in run.history[0])


def test_an_old_network_is_read() -> None:
    entry = check_network(GOLDEN / "networks/cp_nas-s0")
    assert (entry.kind, entry.method, entry.seed) == ("genotype", "cp_nas", 0)


@pytest.mark.parametrize("version", [0, SCHEMA + 1, "1", True, None, 1.0])
def test_another_version_is_refused_in_one_line(version: Any, tmp_path: Path) -> None:
    """Newer, older than any, no whole number, none."""
    shutil.copytree(GOLDEN / RETRAIN, tmp_path / RETRAIN)
    path = tmp_path / RETRAIN / "run.json"
    write_json(path, read_json(path) | {"schema": version})
    with pytest.raises(InputError, match=rf"run\.json: schema {version!r} is not a version") as error:
        read_run(tmp_path / RETRAIN)
    assert "\n" not in str(error.value) and f"1 to {SCHEMA}" in str(error.value)


def test_steps_are_taken_from_the_files_version_on() -> None:
    """Version 2 of 3 takes the second step alone."""
    steps = [lambda old: old | {"first": True}, lambda old: old | {"second": True}]
    assert upgrade({"schema": 1}, steps, "x") == {"schema": 3, "first": True, "second": True}
    assert upgrade({"schema": 2}, steps, "x") == {"schema": 3, "second": True}
    assert upgrade({"schema": 3}, steps, "x") == {"schema": 3}


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    """A search, its network and its retraining."""
    write_search(tmp_path / "runs", "cp_nas", 0)
    write_retrain(tmp_path / "runs", "cp_nas", 0, "1bit", "cifar10")
    return tmp_path / "runs"


EVIL = '"><img src=x onerror=alert(1)>'
FILES = ("run", "metrics", "params", "provenance", "cost")


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        *(
            ("run", {key: EVIL})
            for key in ("key", "network", "method", "variant", "task", "form", "precision")
        ),
        *(("run", {key: "../../x"}) for key in ("key", "network", "method", "variant", "task", "form")),
        ("run", {"network": "n" * 300}),
        ("run", {"network": "a\x00b"}),
        ("run", {"network": "cp_nas-s0\n"}),
        ("run", {"genotype_hash": "short"}),
        ("run", {"seed": -1}),
        ("run", {"seed": 0.5}),
        ("run", {"seed": 10**30}),
        ("run", {"unknown": 1}),
        ("run", {"dataset": {"name": EVIL, "stand_in": False}}),
        ("run", {"dataset": {"name": "../x", "stand_in": False}}),
        ("run", {"dataset": {"name": "x", "stand_in": "no"}}),
        ("run", {"dataset": {"name": "x", "stand_in": False, "train_images": "many"}}),
        ("run", {"dataset": {"name": "x", "stand_in": False, "note": "a\ud800b"}}),
        ("run", {"dataset": None}),
        ("metrics", {"accuracy": "0.5"}),
        ("metrics", {"accuracy": True}),
        ("metrics", {"accuracy": None}),
        ("metrics", {"accuracy": [0.5]}),
        ("metrics", {"accuracy": 1.5}),
        ("metrics", {"nobody_declared": 0.5}),
        ("params", {"deep": deep(50)}),
        ("params", {"text": "x" * 5000}),
        ("params", {"text": "a\x1b[31mb"}),
        ("provenance", {"cpu": ["a", "b"]}),
        ("provenance", {"wall_seconds": "long"}),
        ("provenance", {"code": {"commit": EVIL}}),
        ("cost", {"mbit": -1}),
        ("cost", {"flops": "many"}),
    ],
)
def test_a_wrong_value_is_one_line_and_changes_nothing(
    runs: Path, file: str, changes: dict[str, Any]
) -> None:
    """Whatever stands in a file of a record: its name, what is wrong, and results/records/ as it was."""
    path = runs / RETRAIN / f"{file}.json"
    path.write_text(json.dumps(read_json(path) | changes))
    refused(runs, f"{file}.json")


def refused(runs: Path, words: str) -> None:
    """Adding the runs is refused in one line with these words, and nothing was written."""
    records = runs.parent / "records"
    with pytest.raises(InputError) as error:
        add(runs, "gpu", "quick", records)
    assert words in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert not records.exists()


@pytest.mark.parametrize(
    "content",
    [
        b'{"accuracy": NaN}',
        b'{"accuracy": Infinity}',
        b'{"accuracy": 1e999}',
        b'{"accuracy": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"\xff\xfe{",
        b"[1, 2]",
        b'"text"',
    ],
)
def test_a_file_that_is_no_record_is_refused(runs: Path, content: bytes) -> None:
    (runs / RETRAIN / "metrics.json").write_bytes(content)
    refused(runs, "metrics.json")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x81\x82",
        b"epoch,accuracy\n0,high\n",
        b"epoch,accuracy\n0,inf\n",
        b"epoch,accuracy\n0\n",
        b"epoch,accuracy\n0,0.5,7\n",
        b"epoch,accuracy\n0,\x00\n",
        b"",
    ],
)
def test_a_history_is_a_table_of_numbers(runs: Path, content: bytes) -> None:
    (runs / RETRAIN / "history.csv").write_bytes(content)
    refused(runs, "history.csv")


@pytest.mark.parametrize("link", ["metrics.json", "history.csv", "pictures/a.svg", "pictures", ""])
def test_links_are_refused(runs: Path, link: str) -> None:
    """A link would copy what lies outside the added folder."""
    path = runs / RETRAIN / link
    outside = runs.parent / "outside"
    outside.mkdir()
    (outside / "a.svg").write_text("<svg/>")
    if link in ("pictures", ""):
        target = outside if link else shutil.move(path, outside / "run")
    else:
        path.parent.mkdir(exist_ok=True)
        target = outside / "secret"
        target.write_text(path.read_text() if path.exists() else "<svg/>")
        path.unlink(missing_ok=True)
    path.symlink_to(target)
    refused(runs, "link")


def test_a_folder_that_cannot_be_a_name_is_refused(runs: Path) -> None:
    shutil.move(runs / "search", runs / "retrain" / "<b>")
    refused(runs, "'<b>'")


def test_the_hash_of_settings_is_that_of_version_1() -> None:
    """Committed tables name it: lifting a record must not change it."""
    run = read_run(GOLDEN / RETRAIN)
    assert run.settings == settings_hash(read_json(GOLDEN / RETRAIN / "params.json"))


def test_what_searches_say_of_their_working_is_declared() -> None:
    """The names that all methods use are those of the table of diagnoses, and no other."""
    named = set(re.findall(r"``([a-z_]+_[a-z_]+)``", str(SearchResult.__doc__).partition("metrics:")[2]))
    assert named == {metric.key for metric in METRICS.values() if metric.table == "signal"}


def test_metrics_say_when_a_run_is_noise() -> None:
    """On the side that is worse; a metric without such a value never does."""
    low, high = METRICS["signal_share"], METRICS["tie_share"]
    assert low.is_noise(0.0) and low.is_noise(-3.0) and not low.is_noise(0.1)
    assert high.is_noise(0.05) and high.is_noise(1.0) and not high.is_noise(0.01)
    assert not Metric("x", Unit.NUMBER, None, "x").is_noise(0.0)


def test_a_variant_of_the_retraining_is_no_variant_of_the_search() -> None:
    """``NAME--VARIANT`` is the same found network in another form."""
    what = {"stage": "retrain", "network": "cp_nas-s2--w1a32", "method": "cp_nas", "task": "cifar10"}
    run = in_memory("x", what, {}, {})
    assert (run.variant, run.search_seed, run.found_network) == ("cp_nas", 2, "cp_nas-s2")


def test_a_run_that_was_never_written_is_one_too() -> None:
    run: Run = in_memory(
        "x", {"stage": "search", "network": "a-s3", "method": "a", "seed": 3, "task": "search"}, {}, {}
    )
    assert (run.variant, run.search_seed, run.family) == ("a", 3, "a") and genotype("a", 3).hash
