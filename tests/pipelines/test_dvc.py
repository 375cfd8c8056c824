"""What DVC runs again after which change, on the real graph, in temporary checkouts.

Nothing is trained here: a lock file is made in which every stage is finished, as after `dvc repro`, and DVC is
asked what it would do. The real second run, which does nothing, is a step of .ci/run.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx
import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "pipelines/profiles/quick.yaml"
Edit = Callable[[str, Callable[[str], str]], None]


def _git(*arguments: str, cwd: Path = ROOT) -> str:
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def _needs_git() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the files as they are now, profile quick, with a lock file that says all stages are done."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    shutil.copyfile(PROFILE, folder / "params.yaml")
    _git("init", "--quiet", cwd=folder)
    with contextlib.chdir(folder), Repo() as repo:
        entries = {stage.name: _finished(stage) for stage in repo.index.stages}
    YAML(typ="safe").dump({"schema": "2.0", "stages": entries}, folder / "dvc.lock")
    return folder


def _finished(stage: PipelineStage) -> object:
    """The lock entry of a stage whose inputs are those that lie there now; what is missing gets a made-up hash."""
    for item in (*stage.deps, *stage.outs):
        if item.exists:
            item.save()
        else:
            item.hash_info = HashInfo("md5", hashlib.md5(str(item.def_path).encode()).hexdigest())
    return to_single_stage_lockfile(stage)


@pytest.fixture
def edit(finished: Path) -> Iterator[Edit]:
    """A way to change a file of the checkout; all is put back afterwards."""
    before: dict[Path, str] = {}

    def change(name: str, new: Callable[[str], str]) -> None:
        path = finished / name
        before.setdefault(path, path.read_text())
        text = new(before[path])
        assert text != before[path], f"the change left {name} as it was"
        path.write_text(text)

    yield change
    for path, text in before.items():
        path.write_text(text)


def _reruns(folder: Path) -> tuple[set[str], set[str]]:
    """What `dvc repro --allow-missing` would run: stages that changed themselves, and these with all built on them.

    The stage check is built on by all, but always writes the same.
    """
    with contextlib.chdir(folder), Repo() as repo, repo.lock:
        graph = repo.index.graph  # an edge leads from a stage to one that it is built on
        changed = {
            stage for stage in graph if stage.changed(allow_missing=True) and stage.addressing != "check"
        }
        built = changed.union(*(networkx.ancestors(graph, stage) for stage in changed))
        return {stage.addressing for stage in changed}, {stage.addressing for stage in built}


def _comment(text: str) -> str:
    return f"{text}# a remark\n"


def test_finished_is_up_to_date(finished: Path) -> None:
    assert _reruns(finished) == (set(), set())


def test_a_comment_in_unrelated_files_reruns_nothing(finished: Path, edit: Edit) -> None:
    for name in (
        "pipelines/readme.py",
        "pipelines/provenance.py",
        "tests/pipelines/test_dvc.py",
        "README.md",
    ):
        edit(name, _comment)
    assert _reruns(finished) == (set(), set())


def test_a_comment_in_a_strategy_reruns_the_searches_and_prepares_nothing(finished: Path, edit: Edit) -> None:
    edit("search/strategies/random.py", _comment)
    changed, built = _reruns(finished)
    assert changed == {"search@cp_nas-0", "search@cp_nas-1", "search@random-0", "search@random-1"}
    assert not {name for name in built if name.startswith("prepare")}


def test_a_comment_in_the_reid_code_trains_nothing_else(finished: Path, edit: Edit) -> None:
    edit("downstream/reid/train.py", _comment)
    changed, built = _reruns(finished)
    assert {"reid@cp_nas-s0-1bit-0", "reid@cp_nas-s0-real-0"} <= changed
    assert {"collect", "tables"} <= built
    others = ("prepare", "search", "derive", "cost", "retrain", "detect")
    assert not {name for name in built if name.startswith(others)}


def test_changing_one_seed_reruns_only_its_branch(finished: Path, edit: Edit) -> None:
    """Search seed 1 becomes 7: its two searches, what is built on them, and the tables; nothing of seed 0."""
    edit("params.yaml", lambda text: text.replace("seeds: [0, 1]", "seeds: [0, 7]").replace("-s1", "-s7"))
    branch = {f"{stage}@{method}-7" for stage in ("search", "derive") for method in ("cp_nas", "random")}
    branch |= {"cost@cp_nas-s7", "cost@random-s7", "collect"}
    assert _reruns(finished) == (branch, branch | {"tables"})


def test_changing_one_setting_of_a_method_reruns_only_its_searches(finished: Path, edit: Edit) -> None:
    edit("params.yaml", lambda text: text.replace("beta_p: 1.0", "beta_p: 2.0"))
    changed, built = _reruns(finished)
    assert changed == {"search@cp_nas-0", "search@cp_nas-1"}
    assert {"derive@cp_nas-0", "retrain_cifar10@cp_nas-s0-1bit-0", "tables"} <= built
    assert not {name for name in built if "random" in name}


def test_the_committed_results_are_those_of_the_committed_code(tmp_path: Path) -> None:
    """In a clean clone `dvc repro --dry --allow-missing` finds nothing to do.

    It fails where code or settings were committed after the results: `make reproduce`, and commit dvc.lock and
    results/ too.
    """
    clone = tmp_path / "clone"
    _git("clone", "--quiet", "--shared", str(ROOT), str(clone))
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", "--no-run-cache"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rerun = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert rerun == []
    assert "Data and pipelines are up to date." in done.stdout
