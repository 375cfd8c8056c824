"""The re-identification program as users call it: the stage, its errors, and the three commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from downstream import models
from downstream.models import load_network
from downstream.reid.layout import GALLERY, QUERY
from pipelines import reid
from pipelines.networks import Entry, save_entry
from pipelines.results.checks import read_run
from search.errors import InputError
from search.files import read_csv, read_json, sha256_file, write_json
from search.genotype import published
from search.weights import hash_state, save_weights
from tests.downstream import reid_fixture as fixture

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "pipelines/profiles/quick.yaml"


def write_params(folder: Path, **changes: Any) -> None:
    """The quick profile with the smallest re-ID settings."""
    params = yaml.safe_load(PROFILE.read_text())
    params["reid"] = {**fixture.TINY, **changes}
    params["compute"] = {"device": "cpu", "precision": "32-true", "threads": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data, a derived network and its retrained weights."""
    folder = tmp_path_factory.mktemp("project")
    fixture.make(folder / "data/reid")
    manifest = {"name": "textures", "stand_in": True, "note": "random textures", "sha256": "0" * 64}
    write_json(folder / "data/reid/manifest.json", {"schema": 1, **manifest, "root": ".", "layout": "folder"})
    genotype = published("DARTS_V2")
    entry = Entry("random-s0", "random", 0, "genotype", genotype, genotype.hash)
    save_entry(folder / "runs/networks/random-s0", entry)
    trained = models.build(genotype, precision="1bit", channels=4, cells=3, classes=10, stem="imagenet")
    save_weights(folder / "runs/retrain/imagenet/random-s0-1bit-s0/model.safetensors", trained)
    write_params(folder, pretrained=True, block=None)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """The stage, run once as a program."""
    result = call(project, "--network", "random-s0", "--precision", "1bit", "--seed", "0")
    assert result.returncode == 0, result.stderr
    return project / "runs/reid/random-s0-1bit-s0"


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.reid", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_record(finished: Path) -> None:
    read_run(finished)
    run, metrics = read_json(finished / "run.json"), read_json(finished / "metrics.json")
    assert (run["stage"], run["key"], run["method"]) == ("reid", "random-s0-1bit-s0", "random")
    assert run["dataset"]["stand_in"] is True and run["dataset"]["query_images"] == 3
    trained = finished.parents[1] / "retrain/imagenet/random-s0-1bit-s0/model.safetensors"
    backbone = models.build(
        published("DARTS_V2"), precision="1bit", channels=4, cells=3, classes=10, stem="imagenet"
    )
    tensors = [name for name in backbone.state_dict() if not name.startswith("classifier")]
    assert run["weights"] == {
        "sha256": sha256_file(trained),
        "weights_hash": hash_state(load_network(trained)[0]),
        "matched": len(tensors),
    }
    assert {"rank1", "rank5", "rank10", "map", "untrained_rank1", "untrained_map", "seconds"} <= set(metrics)
    assert [row["epoch"] for row in read_csv(finished / "history.csv")] == ["1", "2"]
    cost = read_json(finished / "cost.json")
    assert cost["bops"] > 0 and cost["genotype_hash"] == run["genotype_hash"]
    assert len(list((finished / "pictures").glob("*.png"))) == 2
    assert not list((finished.parents[2] / "runs/.resume").rglob("*.pt"))


def test_the_same_command_gives_the_same_numbers(
    finished: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_json(finished / "metrics.json")
    monkeypatch.chdir(project)
    after = read_json(project / reid.run_stage("random-s0", "1bit", 0) / "metrics.json")
    for key in ("rank1", "map", "untrained_map", "images_seen"):
        assert after[key] == before[key]


def test_a_network_of_the_zoo(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    folder = reid.run_stage("osnet_x0_25", "real", 0)
    read_run(folder)
    assert read_json(folder / "cost.json")["bops"] == 0
    assert read_json(folder / "run.json")["weights"] is None
    assert read_json(folder / "params.json")["reid"]["pretrained"] is False  # whatever our networks do


def test_extract(finished: Path, project: Path, tmp_path: Path) -> None:
    output = tmp_path / "embeddings.npz"
    images = project / "data/reid" / GALLERY
    result = call(
        project, "extract", "--weights", str(finished / "model.safetensors"), "--images", str(images),
        "--output", str(output),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with np.load(output, allow_pickle=False) as file:
        features, paths, metadata = file["features"], file["paths"], json.loads(str(file["metadata"]))
    assert features.shape == (9, 64) and features.dtype == np.float32
    assert paths.tolist() == sorted(path.name for path in images.iterdir())
    assert metadata["distance"] == "cosine" and metadata["distance_definition"].startswith("1 - <a, b>")


def test_evaluating_the_weights_gives_the_recorded_numbers(
    finished: Path, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, images = str(finished / "model.safetensors"), str(project / "data/reid")
    monkeypatch.setattr(sys, "argv", ["reid", "evaluate", "--weights", weights, "--data", images])
    reid.main()
    found, recorded = json.loads(capsys.readouterr().out), read_json(finished / "metrics.json")
    assert found["map"] == pytest.approx(recorded["map"], abs=1e-6)
    assert found["rank1"] == recorded["rank1"]


def test_tested_on_another_set(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fixture.make(tmp_path / "other", first=50, test=5)
    (tmp_path / "data").symlink_to(project / "data")
    (tmp_path / "runs/networks").mkdir(parents=True)
    (tmp_path / "runs/networks/random-s0").symlink_to(project / "runs/networks/random-s0")
    target = {"name": "others", "root": str(other), "layout": "folder", "stand_in": True}
    write_params(tmp_path, target=target, epochs=1)
    monkeypatch.chdir(tmp_path)
    run = read_json(reid.run_stage("random-s0", "real", 0) / "run.json")
    assert run["dataset"]["name"] == "textures -> others"
    assert (run["dataset"]["train_identities"], run["dataset"]["query_images"]) == (4, 5)


def test_torchreids_script_finds_our_network_and_data(project: Path, tmp_path: Path) -> None:
    fixture.make(tmp_path / "faces", test=8)  # Torchreid's engine prints rank-20, so it needs 20 candidates
    script = tmp_path / "main.py"
    script.write_text(
        "import sys, torch\n"
        "from downstream.reid.compat import torchreid\n"
        "t = torchreid()\n"
        "sizes = dict(height=32, width=32, workers=0, batch_size_train=4)\n"
        "manager = t.data.ImageDataManager(sources='faces', **sizes)\n"
        "model = t.models.build_model('genotype_DARTS_V2_1bit', manager.num_train_pids, pretrained=False)\n"
        "optimizer = t.optim.build_optimizer(model)\n"
        "scheduler = t.optim.build_lr_scheduler(optimizer)\n"
        "engine = t.engine.ImageSoftmaxEngine(manager, model, optimizer, scheduler=scheduler)\n"
        "engine.run(max_epoch=1, save_dir=sys.argv[1])\n"
    )
    result = call(
        project, "script", "--model", "DARTS_V2", "--channels", "4", "--cells", "3",
        "--folder", f"faces={tmp_path / 'faces'}", str(script), str(tmp_path / "log"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "mAP" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--network": "cp_nas-s9"}, "no network 'cp_nas-s9'"),
        ({"--seed": "7"}, "runs/retrain/imagenet/random-s0-1bit-s7/model.safetensors: no such weight file"),
        ({"--network": "osnet_x0_25"}, "osnet_x0_25 is real-valued"),
    ],
)
def test_bad_input_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    options = {"--network": "random-s0", "--precision": "1bit", "--seed": "0", **change}
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["reid", *(part for pair in options.items() for part in pair)])
    with pytest.raises(InputError, match=message):
        reid.main()


def test_a_broken_layout_is_one_line_and_leaves_nothing(project: Path, tmp_path: Path) -> None:
    fixture.make(tmp_path / "data/reid")
    for file in (tmp_path / "data/reid" / QUERY).iterdir():
        file.unlink()
    for name in ("params.yaml", "runs/networks", "runs/retrain", "data/reid/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(project / name)
    result = call(tmp_path, "--network", "random-s0", "--precision", "1bit")
    assert result.returncode == 2
    place = (tmp_path / "data/reid/query").resolve()
    kinds = ".jpg, .jpeg, .png, .bmp, .ppm, .webp"
    assert result.stderr == f"error: {place}: an empty split: no picture in this folder; allowed: {kinds}\n"
    assert not (tmp_path / "runs/reid").exists()
