"""The generated tables: joined with the literature, impossible to misread, the same byte for byte."""

from __future__ import annotations

import csv
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.collect import add, collect
from pipelines.results.checklist import FILE as CHECKLIST
from pipelines.results.checklist import read_checklists
from pipelines.results.column import DATA_KINDS
from pipelines.results.columns import TABLES
from pipelines.results.level import CITED, RE_EVALUATED, REDUCED, REPRODUCED, level
from pipelines.results.literature import cited, literature
from pipelines.results.records import Library, read_records
from pipelines.results.render import escape, markdown_table
from pipelines.tables import build
from search.errors import InputError
from search.files import read_csv, read_json, write_json
from tests.pipelines.results_records import CIFAR, METHODS, genotype, write_campaign, write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ of a synthetic campaign."""
    top = tmp_path_factory.mktemp("suite")
    collect(write_campaign(top / "runs"), top / "results/records", "quick")
    build(top / "results")
    return top / "results"


def _generated(results: Path) -> dict[str, bytes]:
    files = (path.relative_to(results) for path in results.rglob("*") if path.is_file())
    return {str(path): (results / path).read_bytes() for path in files if path.parts[0] != "records"}


def test_the_same_records_give_the_same_bytes(results: Path) -> None:
    """A second build changes nothing; a removed figure comes back, a stale one goes."""
    before = _generated(results)
    (results / "figures/accuracy-quick.svg").unlink()
    (results / "figures/stale.svg").write_text("old")
    build(results)
    assert _generated(results) == before
    assert not any(b"T00:" in content or b"dc:date" in content for content in before.values())


def test_columns_are_those_explained(results: Path) -> None:
    """Every column of every CSV file is explained in the README, in the same order, and no other."""
    readme = (results / "README.md").read_text()
    for spec in TABLES:
        with (results / f"{spec.name}.csv").open() as stream:
            header = next(csv.reader(stream))
        assert header == list(spec.docs)
        section = readme.split(f"## Columns of {spec.name}.csv")[1].split("\n## ")[0]
        assert re.findall(r"^\| `([^`]+)`", section, re.MULTILINE) == header
    for path in results.rglob("*.svg"):
        if "records" not in path.parts:
            assert f"`figures/{path.name}`" in readme


def test_numbers_of_paper_stand_in_and_ours_never_share_a_column(results: Path) -> None:
    """Ours on the papers' data, on other data, on a stand-in, and the literature's: disjoint sets of columns."""
    for spec in TABLES:
        for row in read_csv(results / f"{spec.name}.csv"):
            own = {
                kind: [row[f"{prefix}{m.key}"] for m in spec.metrics if row[f"{prefix}{m.key}"]]
                for kind, (prefix, _) in DATA_KINDS.items()
            }
            if row["level"] == CITED:
                assert not any(own.values()) and not row["n"] and row["source"] and row["paper_dataset"]
            elif spec.metrics:
                assert [kind for kind, values in own.items() if values] == [row["data_kind"]]


def test_a_row_is_the_mean_over_all_runs(results: Path) -> None:
    """Value, standard deviation, n and seeds recomputed from the run files by hand."""
    rows = read_csv(results / "classification.csv")
    (row,) = [
        r for r in rows if r["name"] == "CP-NAS" and r["precision"] == "1bit" and r["dataset"] == "cifar10"
    ]
    files = [
        results / f"records/quick/retrain/cifar10/cp_nas-s{seed}-1bit-s0/metrics.json" for seed in range(3)
    ]
    values = [100 * read_json(path)["accuracy"] for path in files]
    assert float(row["accuracy"]) == pytest.approx(statistics.fmean(values), abs=1e-3)
    assert float(row["accuracy_std"]) == pytest.approx(statistics.stdev(values), abs=1e-3)
    assert (row["n"], row["searches"], row["seeds"]) == ("3", "3", "0:0 1:0 2:0")
    assert row["values"] == " ".join(f"{value:.2f}" for value in values)
    assert (row["bops_M"], row["ops_strict_M"], row["wa"]) == ("12.0", "1.0875", "1/1")
    assert float(row["search_seconds"]) == 61.0 and row["search_device"] == "Synthetic CPU, 2 threads"
    assert row["commit"] == "01234567" and row["level"] == REDUCED
    assert row["genotype"].split() == [genotype("cp_nas", seed).hash[:8] for seed in range(3)]
    assert (row["paper_accuracy"], row["paper_dataset"]) == ("95.27", "CIFAR-10")


def test_real_valued_twins_are_not_joined_with_one_bit_papers(results: Path) -> None:
    """CP-NAS's 95.27 is a 1-bit network's; PC-DARTS's ImageNet number a real-valued one's."""
    for row in read_csv(results / "classification.csv"):
        if row["level"] != CITED and row["precision"] == "real":
            assert row["paper_accuracy"] == ""


def test_views_give_each_data_set_its_own_block(results: Path) -> None:
    """In the Markdown a stand-in's table says so in its heading and in bold; cited numbers stand apart."""
    text = (results / "classification.md").read_text()
    heads = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert heads == [
        "cifar10 · campaign quick",
        "cifar10-folder · campaign quick · stand-in",
        "CIFAR-10 · cited",
        "ImageNet · cited",
    ]
    assert "**A stand-in for ImageNet: not comparable with any paper's number. Level: " in text
    latex = (results / "classification.tex").read_text()
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 4
    assert "stand-in" in latex and "%" not in re.sub(r"\\%|^%.*|\{%$", "", latex, flags=re.MULTILINE)


def test_search_table_shows_the_collapse_diagnosis(results: Path) -> None:
    """Skip connections, depth and share of the found cells, one a seed, as the genotype says."""
    from search.genotype import collapse

    rows = {row["name"]: row for row in read_csv(results / "search.csv") if row["level"] != CITED}
    found = [collapse(genotype("cp_nas", seed)) for seed in range(3)]
    assert rows["CP-NAS"]["skip_connects"] == " ".join(str(one.skip_connects) for one in found)
    assert rows["CP-NAS"]["collapsed"] == f"{sum(one.collapsed for one in found)} of 3"
    assert rows["Random search"]["paper_accuracy"] == "51.3"
    assert rows["Random search"]["note"].startswith("accuracy after retraining on ImageNet")


def test_runs_of_different_settings_are_not_averaged(tmp_path: Path) -> None:
    """Another learning rate is another row."""
    for seed, rate in ((0, 0.1), (1, 0.1), (2, 0.2)):
        write_run(
            tmp_path / "runs",
            f"retrain/cifar10/bi-real-18-1bit-s{seed}",
            network="bi-real-18",
            method=None,
            task="cifar10",
            seed=seed,
            params={"retrain": {"lr": rate}},
            metrics={"accuracy": 0.5, "epochs": 1, "images_seen": 1, "seconds": 1.0},
        )
    collect(tmp_path / "runs", tmp_path / "results/records", "quick")
    build(tmp_path / "results")
    rows = [row for row in read_csv(tmp_path / "results/classification.csv") if row["level"] != CITED]
    assert sorted((row["n"], row["seeds"]) for row in rows) == [("1", "2"), ("2", "0 1")]


def _level(
    tmp_path: Path, task: str, *, scale: dict[str, bool], data: dict[str, Any], metrics: dict[str, float]
) -> str:
    """Level of a run whose search, backbone and own scale are as given; a missing one was not recorded."""
    found, runs = genotype("cp_nas", 0), tmp_path / "runs"
    common: dict[str, Any] = {"network": "cp_nas-s0", "method": "cp_nas", "found": found, "dataset": data}
    base = {"epochs": 3, "images_seen": 1, "seconds": 1.0}
    if "search" in scale:
        write_run(
            runs,
            "search/cp_nas-s0",
            task="search",
            paper_scale=scale["search"],
            metrics={**base, "val_accuracy": 0.5},
            **common,
        )
    if "imagenet" in scale:
        write_run(
            runs,
            "retrain/imagenet/cp_nas-s0-1bit-s0",
            task="imagenet",
            paper_scale=scale["imagenet"],
            metrics={**base, "accuracy": 0.5},
            **common,
        )
    stage = {"reid": "reid"}.get(task, "retrain/" + task)
    write_run(
        runs,
        f"{stage}/cp_nas-s0-1bit-s0",
        task=task,
        paper_scale=scale["own"],
        metrics={**base, **metrics},
        **common,
    )
    collect(runs, tmp_path / "records", "x")
    library = Library(tuple(read_records(tmp_path / "records")))
    return level([record for record in library.runs if record.task == task], library)


REAL = {**CIFAR, "name": "market1501"}
REID = {"rank1": 0.5, "map": 0.4, "untrained_rank1": 0.1, "untrained_map": 0.1}


@pytest.mark.parametrize(
    ("task", "scale", "data", "expected"),
    [
        ("cifar10", {"search": True, "own": True}, CIFAR, REPRODUCED),
        ("cifar10", {"search": True, "own": False}, CIFAR, REDUCED),
        ("cifar10", {"search": False, "own": True}, CIFAR, REDUCED),
        ("cifar10", {"own": True}, CIFAR, REDUCED),
        ("cifar10", {"search": True, "own": True}, {**CIFAR, "stand_in": True}, REDUCED),
        ("cifar10", {"search": True, "own": True}, {**CIFAR, "name": "pets"}, REDUCED),
        ("reid", {"search": True, "imagenet": True, "own": True}, REAL, REPRODUCED),
        ("reid", {"search": True, "imagenet": False, "own": True}, REAL, REDUCED),
        ("reid", {"search": True, "own": True}, REAL, REDUCED),
    ],
)
def test_level_is_that_of_the_weakest_run(
    tmp_path: Path, task: str, scale: dict[str, bool], data: dict[str, Any], expected: str
) -> None:
    """A number at the paper's scale on top of a small or unrecorded search or backbone is a reduced one."""
    metrics = {"accuracy": 0.5} if task == "cifar10" else REID
    assert _level(tmp_path, task, scale=scale, data=data, metrics=metrics) == expected


def test_counting_a_published_network_is_a_re_evaluation(tmp_path: Path) -> None:
    """Nothing was trained."""
    write_run(
        tmp_path / "runs", "cost/reactnet-a", network="reactnet-a", method=None, task="cost", metrics={}
    )
    collect(tmp_path / "runs", tmp_path / "results/records", "quick")
    build(tmp_path / "results")
    (row,) = [
        row for row in read_csv(tmp_path / "results/cost.csv") if row["name"] == "reactnet-a" and row["n"]
    ]
    assert row["level"] == RE_EVALUATED


def test_several_campaigns_stay_apart(tmp_path: Path) -> None:
    """Added records get blocks of their own."""
    runs = write_campaign(tmp_path / "runs", seeds=1)
    collect(runs, tmp_path / "results/records", "quick")
    add(runs, "paper-gpu", "quick", tmp_path / "results/records")
    build(tmp_path / "results")
    rows = [row for row in read_csv(tmp_path / "results/reid.csv") if row["level"] != CITED]
    assert [(row["campaign"], row["n"]) for row in rows] == [("paper-gpu", "1")] * 2 + [("quick", "1")] * 2


def test_tables_refuse_a_damaged_record(tmp_path: Path) -> None:
    """Records are checked when they are read, not only when they were collected."""
    collect(write_campaign(tmp_path / "runs", seeds=1), tmp_path / "results/records", "quick")
    path = tmp_path / "results/records/quick/reid/cp_nas-s0-1bit-s0/metrics.json"
    write_json(path, {**read_json(path), "map": 4})
    with pytest.raises(InputError, match=r"metrics\.json: map is 4"):
        build(tmp_path / "results")
    assert not (tmp_path / "results/reid.csv").exists()


def test_literature_is_complete() -> None:
    """Every row has a source, a width and a number; weights-only networks are marked in every table."""
    rows = literature()
    assert len(rows) > 50
    for row in rows:
        assert row["wa"] and row["status"] == "cited" and row["source"]
        assert {"accuracy", "map", "map50", "bops_M"} & set(row)
        if row["wa"] == "1/32":
            assert "W1A32" in row["note"]
    assert [row["accuracy"] for row in rows if row["id"] == "cpnas-cifar10"] == [95.27]
    assert {
        row["wa"]
        for row in rows
        if row["name"].startswith("BNAS (Chen)") and row["table"] == "classification"
    } == {"1/32"}


def test_literature_values_reach_their_table(results: Path) -> None:
    """As many cited rows as the data file has, with the numbers as printed."""
    for spec in TABLES:
        rows = [row for row in read_csv(results / f"{spec.name}.csv") if row["level"] == CITED]
        assert len(rows) == len(cited(spec.name))
    rows = {row["name"]: row for row in read_csv(results / "detection.csv")}
    assert rows["IDa-Det (ResNet-18)"]["paper_map50"] == "76.9" and rows["NAS-BNN"]["paper_map"] == "31.6"


def test_a_detection_says_which_detector_it_is_of(results: Path) -> None:
    """The detector is the recorded one."""
    ours = [row for row in read_csv(results / "detection.csv") if row["level"] != CITED]
    assert ours and all(row["detector"] == "ssd" and row["binary_neck"] == "no" for row in ours)


def test_every_literature_number_is_in_the_reference_notes() -> None:
    """Nothing is invented: each accuracy stands in the notes the rows were taken from."""
    notes = [ROOT.parent / "shared/reference" / name for name in ("literature.md", "official-release.md")]
    if not all(path.exists() for path in notes):
        pytest.skip("the reference notes are not beside this checkout")
    text = " ".join(path.read_text() for path in notes)
    for row in literature():
        printed = {"error", "error5", "accuracy", "top5", "map", "map50", "rank1", "search_cost", "memory_MB"}
        printed -= {"accuracy"} if "error" in row else set()
        printed -= {"top5"} if "error5" in row else set()
        for key in printed:
            if key in row:
                forms = {f"{row[key]:g}", f"{row[key]:.1f}", f"{row[key]:.2f}"}
                assert any(re.search(rf"(?<![\d.]){re.escape(form)}(?!\d)", text) for form in forms), (
                    row["id"],
                    key,
                )


def test_checklists_name_files_and_answer_from_the_records(results: Path) -> None:
    """Answers are yes, partly or no; those about seeds, random search and ablations come from the records."""
    library = Library(tuple(read_records(results / "records")))
    answers = {point.point: point for checklist in read_checklists(library) for point in checklist.points}
    assert len(answers) == 29
    assert answers["Comparison with random search or random sampling"].answer == "yes"
    assert answers["Ablations of the method's parts"].answer == "no"
    seeds = answers["Results are validated several times, with several seeds"]
    assert seeds.answer == "partly" and seeds.where.startswith("8 of 9 rows")
    named = [
        file
        for entry in yaml.safe_load(CHECKLIST.read_text())["checklists"]
        for p in entry["points"]
        for file in p["files"]
    ]
    assert named and not [file for file in named if file.startswith("/") or "://" in file]


def test_markdown_and_latex_escape() -> None:
    """A bar ends a Markdown cell, LaTeX's special characters end a table."""
    assert markdown_table(["a"], [["x|y"]], [False]).splitlines()[-1] == "| x\\|y |"
    assert escape("50% of a_b & ±") == r"50\% of a\_b \& $\pm$"


def test_metrics_are_numbers_for_dvc(results: Path) -> None:
    """`dvc metrics show` wants a file a row; a stand-in's name says so there too, a hash of settings is not needed."""
    folder = results / "metrics/classification/quick/cifar10-folder"
    found = {path.stem: read_json(path) for path in folder.iterdir()}
    assert set(found) == {f"{method}-{precision}" for method in METHODS for precision in ("1bit", "real")}
    assert all(set(values) == {"stand_in_accuracy", "stand_in_top5", "n"} for values in found.values())


def test_committed_results_are_those_of_their_records(tmp_path: Path) -> None:
    """results/ generated again from its records is the same; no file names a folder of this machine."""
    committed = ROOT / "results"
    if not (committed / "records").is_dir():
        pytest.skip("no run records in this checkout yet")
    shutil.copytree(committed / "records", tmp_path / "results/records")
    build(tmp_path / "results")
    again = _generated(tmp_path / "results")
    assert {name: content for name, content in _generated(committed).items() if name in again} == again
    for path in committed.rglob("*"):
        assert not path.is_file() or f"{ROOT}/".encode() not in path.read_bytes(), path
