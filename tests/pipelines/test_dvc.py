"""What DVC runs again after which change, on the real graph, in temporary checkouts.

Nothing is trained here: a lock file is made in which every stage is finished, as after `dvc repro`, and DVC is
asked what it would do. The real second run, which does nothing, is a step of .ci/run.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
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

from pipelines import code

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
    (folder / "params.yaml").write_text(_with_two_seeds(PROFILE.read_text()))
    _refresh(folder)
    _git("init", "--quiet", cwd=folder)
    with contextlib.chdir(folder), Repo() as repo:
        entries = {stage.name: _finished(stage) for stage in repo.index.stages}
    YAML(typ="safe").dump({"schema": "2.0", "stages": entries}, folder / "dvc.lock")
    return folder


def _with_two_seeds(text: str) -> str:
    """Profile quick with a second search seed of two methods, so that seeds can be told apart."""
    text, changed = re.subn(
        r"(?<=\n)  methods: .*\n  seeds: \[0\]\n", "  methods: [cp_nas, random]\n  seeds: [0, 1]\n", text
    )
    assert changed == 1
    text = text.replace(", dcp_nas-s0", "")
    return text.replace("cost: [cp_nas-s0, random-s0,", "cost: [cp_nas-s0, cp_nas-s1, random-s0, random-s1,")


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
    fingerprints = (finished / code.NAME).read_bytes()

    def change(name: str, new: Callable[[str], str]) -> None:
        path = finished / name
        before.setdefault(path, path.read_text())
        text = new(before[path])
        assert text != before[path], f"the change left {name} as it was"
        path.write_text(text)

    yield change
    for path, text in before.items():
        path.write_text(text)
    (finished / code.NAME).write_bytes(fingerprints)


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


def _statement(text: str) -> str:
    return f"{text}\nADDED = 1\n"


def _program(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of the checkout, as DVC runs it: the code is that of the folder it runs in."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def _refresh(folder: Path) -> None:
    done = _program(folder, "pipelines.code")
    assert done.returncode == 0, done.stderr


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


def test_what_only_a_reader_sees_reruns_nothing(finished: Path, edit: Edit) -> None:
    """A comment, a docstring, a message, a help text: the fingerprints, made anew, are the same."""
    edit("search/strategies/random.py", _comment)
    edit("search/errors.py", _comment)
    edit("search/strategies/cp_nas.py", lambda text: text.replace('"""', '"""Here: ', 1))
    edit(
        "search/genotype.py", lambda text: text.replace("raise InputError(", 'raise InputError("New: " + ', 1)
    )
    edit("pipelines/retrain.py", lambda text: text.replace('help="a network', 'help="any network', 1))
    before = (finished / code.NAME).read_bytes()
    _refresh(finished)
    assert (finished / code.NAME).read_bytes() == before
    assert _reruns(finished) == (set(), set())


def test_a_change_of_a_strategy_reruns_its_own_searches(finished: Path, edit: Edit) -> None:
    """Nothing of CP-NAS, and nothing is prepared."""
    edit("search/strategies/random.py", _statement)
    _refresh(finished)
    changed, built = _reruns(finished)
    assert changed == {"search@random-0", "search@random-1"}
    assert not {name for name in built if "cp_nas" in name or name.startswith("prepare")}


def test_a_string_that_decides_numbers_counts(finished: Path, edit: Edit) -> None:
    edit("search/binary.py", lambda text: text.replace('"bireal"', '"bi-real"'))
    _refresh(finished)
    changed, _ = _reruns(finished)
    assert {
        "search@cp_nas-0",
        "search@random-0",
        "cost@cp_nas-s0",
        "retrain_cifar10@cp_nas-s0-1bit-0",
    } <= changed


def test_files_that_no_import_shows_count(finished: Path, edit: Edit) -> None:
    """A configuration of MMDetection, a published genotype."""
    edit("downstream/detection/configs/pipeline.py", _statement)
    edit("search/published/DARTS_V2.json", lambda text: f"{text}\n")
    _refresh(finished)
    changed, _ = _reruns(finished)
    assert {name.split("@")[0] for name in changed} == {"adopt", "detect"}


def test_a_change_of_the_reid_code_trains_nothing_else(finished: Path, edit: Edit) -> None:
    edit("downstream/reid/train.py", _statement)
    _refresh(finished)
    changed, built = _reruns(finished)
    assert {"reid@cp_nas-s0-1bit-0", "reid@cp_nas-s0-real-0"} <= changed
    assert {"collect", "tables"} <= built
    others = ("prepare", "search", "derive", "cost", "retrain", "detect")
    assert not {name for name in built if name.startswith(others)}


def test_another_teacher_reruns_its_retraining(finished: Path, edit: Edit) -> None:
    """The weight file's content, not its name."""
    teacher = finished / "teacher.safetensors"
    teacher.write_bytes(b"one")
    edit(
        "params.yaml",
        lambda text: text.replace(
            "teacher: null, teacher_weight: 0.0", f"teacher: {teacher}, teacher_weight: 1.0", 1
        ),
    )
    _refresh(finished)
    first = (finished / code.NAME).read_text()
    teacher.write_bytes(b"two")
    _refresh(finished)
    lines = zip(first.splitlines(), (finished / code.NAME).read_text().splitlines(), strict=True)
    assert [before.split(":")[0] for before, after in lines if before != after] == ["  cifar10"]
    changed, _ = _reruns(finished)
    assert {name.split("@")[0] for name in changed} >= {"retrain_cifar10"}


def test_a_stage_with_a_stale_fingerprint_stops(finished: Path, edit: Edit) -> None:
    """One line, exit code 2; the stages of other code are not concerned."""
    edit("search/strategies/random.py", _statement)
    done = _program(finished, "pipelines.search", "--method", "random", "--seed", "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "search.random is not the fingerprint of the code any more" in line and code.REFRESH in line
    assert _program(finished, "pipelines.code", "--check").returncode == 2
    assert _program(finished, "pipelines.derive", "--name", "resnet-18").returncode == 0
    shutil.rmtree(finished / "runs")


def test_a_program_of_another_checkout_is_not_taken_for_this_ones(finished: Path) -> None:
    """Its code is not what the code.yaml here speaks of."""
    script = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = ['--name', 'resnet-18']\n"
    script += "runpy.run_module('pipelines.derive', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=finished, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the folder it runs in has code of its own" in done.stderr and len(done.stderr.splitlines()) == 1


def test_changing_one_seed_reruns_only_its_branch(finished: Path, edit: Edit) -> None:
    """Search seed 1 becomes 7: its two searches, what is built on them, and the tables; nothing of seed 0."""
    edit("params.yaml", lambda text: text.replace("seeds: [0, 1]", "seeds: [0, 7]").replace("-s1", "-s7"))
    branch = {f"{stage}@{method}-7" for stage in ("search", "derive") for method in ("cp_nas", "random")}
    branch |= {"cost@cp_nas-s7", "cost@random-s7", "collect"}
    assert _reruns(finished) == (branch, branch | {"tables"})


def test_changing_one_setting_of_a_method_reruns_only_its_searches(finished: Path, edit: Edit) -> None:
    edit("params.yaml", lambda text: re.sub(r"beta_p: [\d.]+", "beta_p: 9.5", text, count=1))
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
