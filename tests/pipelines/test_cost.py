"""``python -m pipelines.cost``: its numbers, its defaults, its errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cost import main
from pipelines.derive import adopted
from pipelines.networks import FOLDER, Entry, save_entry
from pipelines.params import load
from pipelines.results.checks import read_run
from search.errors import InputError
from search.files import read_json
from search.genotype import published
from tests.golden import golden

ROOT = Path(__file__).parents[2]
FOUND = published("PC_DARTS_cifar")
KEYS = {
    "params",
    "binary_weights",
    "bops",
    "w1a32_macs",
    "flops",
    "macs",
    "ops_strict",
    "ops_generous",
    "mbit",
}


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "stem", "auxiliary", "parameters", "macs"), golden("genotype_costs")["rows"]
)
def test_published_genotypes_by_default_sizes(
    capsys: pytest.CaptureFixture[str], name: str, stem: str, auxiliary: bool, parameters: int, macs: float
) -> None:
    extra = ["--auxiliary"] if auxiliary else []
    found = _json(capsys, name, "--form", "darts", "--stem", stem, *extra)
    assert (found["params"], round(found["macs"] / 1e6, 3)) == (parameters, macs)
    assert (found["precision"], found["form"], found["auxiliary"]) == ("real", "darts", auxiliary)


def test_a_file_and_explicit_sizes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    published("DARTS_V2").save(path)
    sizes = ["--form", "darts", "--stem", "imagenet", "--channels", "48", "--cells", "14"]
    sizes += ["--classes", "1000", "--input", "224"]
    found = _json(capsys, str(path), *sizes)
    assert (found["params"], found["macs"]) == (4_718_752, 529_911_552)
    assert found["genotype_hash"] == published("DARTS_V2").hash


def test_the_released_network_needs_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    expected, found = golden("released"), _json(capsys, "ddpnas_mcn_2")
    assert found["params"] == expected["parameters"] and found["binary_weights"] == expected["binary_weights"]
    assert round(found["macs"] / 1e6, 2) == expected["macs"] and round(found["mbit"], 1) == expected["mbit"]
    described = {
        key: found[key] for key in ("form", "stem", "channels", "cells", "classes", "input", "precision")
    }
    assert described == {
        "form": "released", "stem": "imagenet", "channels": 108, "cells": 10, "classes": 1000, "input": 224,
        "precision": "1bit",
    }  # fmt: skip


@pytest.mark.parametrize("row", golden("one_bit_networks")["rows"], ids=lambda row: row[0])
def test_hand_made_networks(capsys: pytest.CaptureFixture[str], row: list[Any]) -> None:
    found = _json(capsys, row[0])
    millions = [round(found[key] / 1e6, 3) for key in ("bops", "flops", "ops_strict")]
    assert [*millions, found["params"], found["binary_weights"], round(found["mbit"], 2)] == row[1:]
    assert found["genotype_hash"] is None and found["form"] is None and found["cells"] is None


def test_json_is_integers_where_exact(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "bi-real-18", "--per-layer")
    assert set(found) > KEYS
    assert all(isinstance(found[key], int) for key in KEYS - {"ops_strict", "ops_generous", "mbit"})
    assert found["ops_strict"] == found["bops"] / 64 + found["flops"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]


def test_real_twin(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "resnet-18", "--real")
    assert (found["params"], found["flops"], found["bops"], found["precision"]) == (
        11_689_512,
        1_814_073_344,
        0,
        "real",
    )
    child, parent = (
        _json(capsys, "DARTS_V2", "--channels", "4", "--cells", "3", *twin) for twin in ([], ["--real"])
    )
    assert child["macs"] == parent["flops"] and child["bops"] > 0 == child["w1a32_macs"]


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the quick profile and two networks of the chain."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "pipelines/profiles/quick.yaml", "params.yaml")
    for entry in (adopted("bi-real-18"), Entry("cp_nas-s3", "cp_nas", 3, "genotype", FOUND, FOUND.hash)):
        save_entry(FOLDER / entry.name, entry)
    return tmp_path


def test_the_stage_counts_a_found_network_at_the_sizes_of_its_retraining(chain: Path) -> None:
    main(["--stage", "cp_nas-s3"])
    folders = sorted((chain / "runs/cost/cp_nas-s3").iterdir())
    expected = [
        "retrain-cifar10-1bit",
        "retrain-cifar10-real",
        "retrain-imagenet-1bit",
        "retrain-imagenet-real",
    ]
    assert [folder.name for folder in folders] == expected
    recipe = load().retrain.cifar10.network
    for folder in folders:
        read_run(folder)
        run, cost = (read_json(folder / f"{name}.json") for name in ("run", "cost"))
        assert (run["method"], run["seed"], run["genotype_hash"]) == ("cp_nas", 3, FOUND.hash)
        assert cost["architecture_hash"] == run["architecture_hash"]
        assert cost["precision"] == run["precision"] and set(cost) > KEYS
    cost = read_json(folders[0] / "cost.json")
    assert (cost["channels"], cost["cells"], cost["input"]) == (recipe.channels, recipe.cells, 32)


def test_the_stage_counts_a_known_network_at_the_size_of_the_literature_too(chain: Path) -> None:
    main(["--stage", "bi-real-18"])
    folder = chain / "runs/cost/bi-real-18"
    assert len(list(folder.iterdir())) == 6
    read_run(folder / "imagenet-1bit")
    cost = read_json(folder / "imagenet-1bit/cost.json")
    assert (cost["params"], cost["classes"], cost["input"]) == (11_689_512, 1000, 224)
    width = load().retrain.cifar10.network.handmade_channels
    assert read_json(folder / "retrain-cifar10-1bit/cost.json")["channels"] == width


def test_the_stage_refuses_an_unknown_network(chain: Path) -> None:
    with pytest.raises(InputError, match="no network 'cp_nas-s9'"):
        main(["--stage", "cp_nas-s9"])


def test_input_size_may_be_a_rectangle(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "resnet-18", "--real", "--classes", "1", "--input", "448x224")
    assert found["input"] == [448, 224]
    assert found["macs"] == 2 * (1_814_073_344 - 512_000) + 512


def test_the_table_names_what_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    main(["DDPNAS_MCN_2", "--stem", "cifar", "--channels", "4", "--cells", "3", "--per-layer"])
    text = capsys.readouterr().out
    assert text.startswith(
        "DDPNAS_MCN_2, 1bit, form released, 3 cells, cifar stem, C = 4, 10 classes, 32x32\n"
    )
    assert "OPs generous" in text and "classifier" in text
    main(["reactnet-a", "--stem", "cifar", "--channels", "4"])
    text = capsys.readouterr().out
    assert (
        text.startswith("reactnet-a, 1bit, cifar stem, C = 4, 10 classes, 32x32\n")
        and "classifier" not in text
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reactnet-b"], "unknown network 'reactnet-b', did you mean 'reactnet-a'?"),
        (["DARTS_V9"], "did you mean 'DARTS_V"),
        (["absent.json"], "absent.json: no such file"),
        (["resnet-18", "--cells", "3"], "--cells: resnet-18 is hand-made"),
        (["resnet-18", "--form", "paper"], "--form: resnet-18 is hand-made"),
        (["resnet-18", "--auxiliary"], "--auxiliary: resnet-18 is hand-made"),
        (["DARTS_V2", "--input", "31"], "--input: 31x31 pixels; allowed: 32 and more"),
        (["DARTS_V2", "--channels", "7"], "7 channels"),
        (["DARTS_V2", "--cells", "0"], "0 cells"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("arguments", [[], ["DARTS_V2", "--input", "wide"], ["DARTS_V2", "--form", "vgg"]])
def test_wrong_syntax_is_a_usage_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_program_ends_with_one_line_and_exit_code_two(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"schema": 1')
    command = [sys.executable, "-m", "pipelines.cost", str(tmp_path / "broken.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "broken.json: not valid JSON" in done.stderr


def test_the_program_prints_nothing_but_the_object_and_loads_no_extra() -> None:
    code = (
        "import sys, runpy; sys.argv = ['cost', 'resnet-18', '--json']\n"
        "try: runpy.run_module('pipelines.cost', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "extras = {'mmdet', 'mmcv', 'torchreid', 'dvc', 'lightning', 'lightning_fabric', 'torchvision'}\n"
        "print(sorted(extras & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert json.loads(done.stdout)["name"] == "resnet-18"
